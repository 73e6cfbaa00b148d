// SPDX-License-Identifier: Apache-2.0
// Parser of the JPEG segments before the entropy-coded data: image size and Exif orientation.
//
// level.cc, feed.cc and decoder.cc include it in separate namespaces, because they are compiled for
// different instruction levels.
#pragma once

inline int be16(const uint8_t* p) { return p[0] << 8 | p[1]; }

// A segment without its marker and length.
struct JpegSegment {
  int marker;
  const uint8_t* data;
  int64_t bytes;
};

// Reads the next segment at or after `at` and moves `at` behind it.  Skips bytes that are no
// marker, as libjpeg does.  Returns false at the entropy-coded data, at the end and at a truncated
// segment.
inline bool next_segment(const uint8_t* data, int64_t size, int64_t& at, JpegSegment& segment) {
  for (;;) {
    while (at < size && data[at] != 0xFF) ++at;
    while (at < size && data[at] == 0xFF) ++at;
    if (at >= size) return false;
    const int marker = data[at++];
    if (marker == 0x00 || marker == 0x01 || (marker & 0xF8) == 0xD0)
      continue;  // markers without a length
    if (marker >= 0xD8 && marker <= 0xDA) return false;
    if (at + 2 > size) return false;
    const int64_t length = be16(data + at);
    if (at + length > size) return false;
    if (length < 2) {  // invalid: libjpeg continues after the length field
      at += 2;
      continue;
    }
    segment = {marker, data + at + 2, length - 2};
    at += length;
    return true;
  }
}

inline bool is_jpeg(const uint8_t* data, int64_t size) {
  return size >= 4 && data[0] == 0xFF && data[1] == 0xD8 && data[2] == 0xFF;
}

// Reads height and width of a JPEG in pixels.  Returns false if it has no frame header.
inline bool jpeg_size(const uint8_t* data, int64_t size, int64_t& H, int64_t& W) {
  if (!is_jpeg(data, size)) return false;
  JpegSegment segment;
  for (int64_t at = 2; next_segment(data, size, at, segment);) {
    const int kind = segment.marker & 0x0F;
    const bool frame = (segment.marker & 0xF0) == 0xC0 && kind != 4 && kind != 8 && kind != 12;
    if (!frame || segment.bytes < 5) continue;
    H = be16(segment.data + 1);
    W = be16(segment.data + 3);
    return true;
  }
  return false;
}

// Returns whether Exif data, which begins with the byte order, has an orientation of 2 to 8 in its
// first directory.  Ignores the type of the entry, as OpenCV does.
inline bool exif_turns(const uint8_t* data, int64_t size) {
  const bool little = size >= 2 && data[0] == 'I' && data[1] == 'I';
  const auto u16 = [&](int64_t at) -> int64_t {
    if (at + 2 > size) return -1;
    return little ? data[at + 1] << 8 | data[at] : be16(data + at);
  };
  if (u16(2) != 42 || size < 8) return false;
  const int64_t start = little ? u16(6) << 16 | u16(4) : u16(4) << 16 | u16(6);
  const int64_t entries = u16(start);
  for (int64_t i = 0, at = start + 2; i < entries && at + 10 <= size; ++i, at += 12)
    if (u16(at) == 0x0112) {
      const int64_t orientation = u16(at + 8);
      return orientation >= 2 && orientation <= 8;
    }
  return false;
}

// Returns whether OpenCV may rotate or mirror a JPEG because of the Exif data in its first APP1
// segment.  MXNet's OpenCV ignores Exif if the file begins with a JFIF segment.  The result may
// also be true for damaged Exif data that OpenCV ignores.
inline bool may_turn(const uint8_t* data, int64_t size) {
  if (!is_jpeg(data, size)) return false;
  if (data[3] == 0xE0 && size >= 11 && !memcmp(data + 6, "JFIF", 5)) return false;
  constexpr int64_t kNameBytes = 6;  // "Exif" and two zeros, which OpenCV does not check
  JpegSegment segment;
  for (int64_t at = 2; next_segment(data, size, at, segment);)
    if (segment.marker == 0xE1)
      return segment.bytes > kNameBytes &&
             exif_turns(segment.data + kNameBytes, segment.bytes - kNameBytes);
  return false;
}
