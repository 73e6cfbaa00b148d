// SPDX-License-Identifier: Apache-2.0
// JPEG decoder with output to normalised planes or to pixels.  It works in one pass: each row of
// MCUs is entropy-decoded, transformed, colour-converted and written while it is in the L1 cache.
//
// It supports the usual format of face data sets: complete sequential Huffman-coded JPEGs of 8 bits
// in one scan, grey or YCbCr, with luma sampling factors of 1 or 2.  It returns kFallback for every
// other format and every unusual stream.  Its pixels equal those of libjpeg-turbo with default
// options (JDCT_ISLOW, fancy upsampling; 4:4:0 as of version 2.1) bit by bit.
//
// Included by level.cc, into the namespace of a level.
#pragma once

#if defined(__SSE2__)

struct JpegComponent {
  int id, h, v, quant, dc, ac;
};

// Decoder state that outlives an image: the tables of the last image.
struct JpegState {
  HuffmanTable tables[2][2];        // [dc or ac][identifier]
  uint8_t sources[2][2][16 + 256];  // DHT bytes of each table; most images of a data set share them
  bool built[2][2];
  int16_t quant[4][kBlockValues];
  JpegComponent components[3];
  int count;             // number of components
  int restart_interval;  // 0: none
};

// Reads the segments before the entropy-coded data.  Returns the offset of that data, or 0 if the
// format is not supported, or if Exif rotates the image and `turned` is false.
inline int64_t read_header(JpegState& state, const uint8_t* data, int64_t size, int64_t H,
                           int64_t W, bool turned) {
  constexpr int64_t kMaxSidePixels = 65500;  // the limit of libjpeg
  if (H < 1 || W < 1 || H > kMaxSidePixels || W > kMaxSidePixels) return 0;
  if (size < 4 || data[0] != 0xFF || data[1] != 0xD8) return 0;
  bool quant_there[4] = {}, table_there[2][2] = {}, frame = false, jfif = false, adobe = false;
  int transform = 0;
  state.restart_interval = 0;
  int64_t at = 2;
  for (;;) {
    while (at + 1 < size && data[at] == 0xFF && data[at + 1] == 0xFF) ++at;  // fill bytes
    if (at + 4 > size || data[at] != 0xFF) return 0;
    const int marker = data[at + 1];
    const int64_t length = be16(data + at + 2) - 2;
    const uint8_t* in = data + at + 4;
    at += 4 + length;
    if (length < 0 || at > size) return 0;
    const uint8_t* const end = in + length;
    if (marker == 0xC0 || marker == 0xC1) {
      if (frame || length < 6 || in[0] != 8 || be16(in + 1) != H || be16(in + 3) != W) return 0;
      state.count = in[5];
      if ((state.count != 1 && state.count != 3) || length != 6 + 3 * state.count) return 0;
      for (int i = 0; i < state.count; ++i) {
        const uint8_t* of = in + 6 + 3 * i;
        state.components[i] = {of[0], of[1] >> 4, of[1] & 15, of[2], 0, 0};
        if (of[2] > 3) return 0;
      }
      frame = true;
    } else if (marker == 0xC4) {
      while (in < end) {
        if (end - in < 17) return 0;
        const int kind = *in >> 4, identifier = *in & 15;
        int symbols = 0;
        for (int i = 1; i <= 16; ++i) symbols += in[i];
        if (kind > 1 || identifier > 1 || symbols > 256 || end - in < 17 + symbols) return 0;
        uint8_t* source = state.sources[kind][identifier];
        bool& built = state.built[kind][identifier];
        if (!built || __builtin_memcmp(source, in + 1, 16 + symbols)) {
          built = false;
          __builtin_memcpy(source, in + 1, 16 + symbols);  // read once: a mapped file may change
          built = build(state.tables[kind][identifier], source, source + 16, kind == 0);
          if (!built) return 0;
        }
        table_there[kind][identifier] = true;
        in += 17 + symbols;
      }
    } else if (marker == 0xDB) {
      while (in < end) {
        const int identifier = *in;  // precision 0: 8-bit values
        if (identifier > 3 || end - in < 1 + kBlockValues) return 0;
        for (int i = 0; i < kBlockValues; ++i) state.quant[identifier][kZigzag.at[i]] = in[1 + i];
        quant_there[identifier] = true;
        in += 1 + kBlockValues;
      }
    } else if (marker == 0xDD) {
      if (length != 2) return 0;
      state.restart_interval = be16(in);
    } else if (marker == 0xE0) {
      jfif |= length >= 14 && !__builtin_memcmp(in, "JFIF", 5);
    } else if (marker == 0xE1) {
      if (!turned && may_turn(data, size)) return 0;
    } else if (marker == 0xEE) {
      if (length >= 12 && !__builtin_memcmp(in, "Adobe", 5)) adobe = true, transform = in[11];
    } else if (marker == 0xDA) {
      if (!frame || length != 4 + 2 * state.count || in[0] != state.count) return 0;
      for (int i = 0; i < state.count; ++i) {
        JpegComponent& component = state.components[i];
        component.dc = in[2 + 2 * i] >> 4;
        component.ac = in[2 + 2 * i] & 15;
        if (in[1 + 2 * i] != component.id || component.dc > 1 || component.ac > 1) return 0;
        if (!table_there[0][component.dc] || !table_there[1][component.ac]) return 0;
        if (!quant_there[component.quant] || !state.quant[component.quant][0]) return 0;
      }
      if (end[-3] != 0 || end[-2] != 63 || end[-1] != 0) return 0;
      break;
    } else if ((marker & 0xF0) != 0xE0 && marker != 0xFE) {
      return 0;
    }
  }
  JpegComponent* c = state.components;
  for (int i = 0; i < state.count; ++i)
    if (c[i].h < 1 || c[i].h > 4 || c[i].v < 1 || c[i].v > 4) return 0;
  if (state.count == 1) {
    c[0].h = c[0].v = 1;  // a scan of one component stores its blocks row by row
    return at;
  }
  const bool numbered = c[0].id == 1 && c[1].id == 2 && c[2].id == 3;
  if (!(jfif || (adobe ? transform == 1 : numbered))) return 0;
  if (c[0].h > 2 || c[0].v > 2) return 0;
  if (c[0].h == 2 && W < 5) return 0;  // libjpeg does not interpolate so narrow a row
  for (int i = 1; i < 3; ++i)
    if (c[i].h != 1 || c[i].v != 1) return 0;
  return at;
}

// Layout of a thread's workspace, which is aligned to 64 bytes.
struct JpegMemory {
  JpegState* state;
  uint8_t* codes;
  int16_t* blocks[3];
  uint8_t* samples[3];  // two rows of MCUs; each row of samples has one byte of padding before it
  int64_t stride;       // bytes from one row of samples to the next
  int16_t* chroma;      // (2, stride)
  uint8_t* colours;     // (3, stride)
  int64_t bytes;

  JpegMemory(char* workspace, int64_t W, int64_t max_bytes) {
    char* next = workspace;
    const auto take = [&](int64_t size) __attribute__((always_inline)) {
      char* piece = next;
      next += round_up(size, 64);
      return piece;
    };
    // Blocks of a row of 16-pixel MCUs, plus the unused blocks of the last vector.
    const int64_t across = (W + 15) / 16 * 2 + 4;
    stride = 8 * across + 128;
    state = reinterpret_cast<JpegState*>(take(sizeof(JpegState)));
    codes = reinterpret_cast<uint8_t*>(take(max_bytes + BitReader::kSlackBytes));
    for (int i = 0; i < 3; ++i)
      blocks[i] =
          reinterpret_cast<int16_t*>(take(2 * across * kBlockValues * sizeof(int16_t) + 64));
    for (int i = 0; i < 3; ++i)
      samples[i] = reinterpret_cast<uint8_t*>(take(32 * stride + 64)) + 64;
    chroma = reinterpret_cast<int16_t*>(take(2 * stride * sizeof(int16_t)));
    colours = reinterpret_cast<uint8_t*>(take(3 * stride));
    bytes = next - workspace;
  }
};

inline int64_t jpeg_bytes(int64_t W, int64_t max_bytes) {
  return JpegMemory(nullptr, W, max_bytes).bytes;
}

// Returns row `row` of a component; the workspace holds the last two rows of MCUs.
INLINE uint8_t* sample_row(const JpegMemory& memory, int i, int64_t row) {
  return memory.samples[i] + row % (16 * memory.state->components[i].v) * memory.stride;
}

// Writes the rows of pixels from `top` to `end`.
template <bool mirrored, bool streaming>
INLINE void write_rows(const JpegMemory& memory, const Jpegs& in, int64_t top, int64_t end,
                       float* planes, uint8_t* pixels) {
  const JpegComponent& luma = memory.state->components[0];
  const int64_t across = (in.W + luma.h - 1) / luma.h, down = (in.H + luma.v - 1) / luma.v;
  for (int64_t row = top; row < end; ++row) {
    const uint8_t* y = sample_row(memory, 0, row);
    const uint8_t* colours[3] = {y, y, y};
    if (memory.state->count == 3) {
      const int64_t near = row / luma.v;
      const bool below = row % luma.v;
      const int64_t far = luma.v == 1 ? near
                          : below     ? (near + 1 < down ? near + 1 : near)
                                      : (near > 0 ? near - 1 : near);
      const auto upsample = [&](auto row_of) __attribute__((always_inline)) {
        for (int i = 1; i < 3; ++i)
          row_of(sample_row(memory, i, near), sample_row(memory, i, far), across, below,
                 memory.chroma + (i - 1) * memory.stride);
      };
      if (luma.h == 2)
        luma.v == 2 ? upsample(upsample_row<2, 2>) : upsample(upsample_row<2, 1>);
      else
        luma.v == 2 ? upsample(upsample_row<1, 2>) : upsample(upsample_row<1, 1>);
      colour_row(y, memory.chroma, memory.chroma + memory.stride, in.W, memory.stride,
                 memory.colours);
      for (int colour = 0; colour < 3; ++colour)
        colours[colour] = memory.colours + colour * memory.stride;
    }
    if (planes)
      for (int colour = 0; colour < 3; ++colour)
        plane_row<mirrored, streaming>(colours[colour], in.W, in.factor, in.offset,
                                       planes + (colour * in.H + row) * in.W);
    else
      pixel_row(colours, in.W, pixels + row * 3 * in.W);
  }
}

// Transforms the blocks of a row of MCUs to samples.  `across` is the number of chroma samples in a
// row.  Returns false if a coefficient is too large for an image.
inline bool transform_row(const JpegMemory& memory, int64_t row, int64_t mcus, int64_t across) {
  for (int i = 0; i < memory.state->count; ++i) {
    const JpegComponent& component = memory.state->components[i];
    const int64_t count = mcus * component.h * component.v, stride = memory.stride;
    const int16_t* quant = memory.state->quant[component.quant];
    uint8_t* samples = sample_row(memory, i, row * 8 * component.v);
    const int h = component.h, v = component.v;
    for (int64_t first = 0; first < count; first += kVectorBlocks) {
      const auto place = [&](int k) __attribute__((always_inline)) {
        const int64_t block = first + k, mcu = block / (h * v), inside = block % (h * v);
        return samples + (inside / h) * 8 * stride + (mcu * h + inside % h) * 8;
      };
      if (!idct(memory.blocks[i] + first * kBlockValues, quant, stride, place)) return false;
    }
    for (int line = 0; i && line < 8; ++line) {  // padding for the interpolation
      uint8_t* const begin = samples + line * stride;
      begin[-1] = begin[0];
      begin[across] = begin[across - 1];
    }
  }
  return true;
}

// Returns the status of an image whose entropy-coded data cannot be read further: kTruncated if an
// incomplete code precedes the end-of-image marker, else kFallback.
__attribute__((noinline, cold)) inline uint8_t failure_status(const uint8_t* data, int64_t marker,
                                                              int64_t size, int64_t bits_left) {
  if (bits_left >= HuffmanTable::kMaxCodeBits) return kFallback;
  while (marker + 2 < size && data[marker + 1] == 0xFF) ++marker;  // fill bytes
  return data[marker + 1] == 0xD9 ? kTruncated : kFallback;
}

// Decodes one image and returns its status.  Without planes and pixels it only checks the data.
inline uint8_t decode_image(const JpegMemory& memory, const Jpegs& in, const uint8_t* data,
                            int64_t size, bool mirror, float* planes, uint8_t* pixels) {
  JpegState& state = *memory.state;
  const bool wanted = planes || pixels;
  int64_t at = read_header(state, data, size, in.H, in.W, !wanted);
  if (!at) return kFallback;
  const JpegComponent* c = state.components;
  const int64_t mcus = (in.W + 8 * c[0].h - 1) / (8 * c[0].h);
  const int64_t rows = (in.H + 8 * c[0].v - 1) / (8 * c[0].v);
  const bool streaming = planes && reinterpret_cast<uintptr_t>(planes) % 32 == 0 && in.W % 8 == 0;
  const int64_t interval = state.restart_interval ? state.restart_interval : rows * mcus;
  const int lumas = c[0].h * c[0].v;
  for (int i = 0; i < state.count; ++i)  // unused blocks of the last vector
    __builtin_memset(memory.blocks[i] + mcus * c[i].h * c[i].v * kBlockValues, 0,
                     (kVectorBlocks - 1) * kBlockValues * sizeof(int16_t));
  int64_t until_restart = 0, bytes = 0, written = 0;
  int restarts = 0;
  int32_t last_dc[3] = {};
  BitReader bits(memory.codes);
  for (int64_t row = 0; row < rows; ++row) {
    for (int64_t mcu = 0; mcu < mcus; ++mcu) {
      if (until_restart == 0) {
        if (row + mcu) {
          const int64_t bits_left = 8 * bytes - bits.taken(memory.codes);
          if (bits_left >= 8) return kFallback;
          if (data[at + 1] != 0xD0 + (restarts++ & 7))
            return failure_status(data, at, size, bits_left);
          at += 2;
        }
        at = unstuff(data, at, size, memory.codes, bytes);
        if (at < 0) return kFallback;
        __builtin_memset(memory.codes + bytes, 0, 16);
        bits = BitReader(memory.codes);
        last_dc[0] = last_dc[1] = last_dc[2] = 0;
        until_restart = interval;
      }
      --until_restart;
      for (int i = 0; i < state.count; ++i) {
        const HuffmanTable& dc = state.tables[0][c[i].dc];
        const HuffmanTable& ac = state.tables[1][c[i].ac];
        const int here = i ? 1 : lumas;
        int16_t* block = memory.blocks[i] + mcu * here * kBlockValues;
        for (int k = 0; k < here; ++k, block += kBlockValues) {
          const bool read = read_block(bits, dc, ac, last_dc[i], block);
          const int64_t bits_left = 8 * bytes - bits.taken(memory.codes);
          if (!read || bits_left < 0) return failure_status(data, at, size, bits_left);
          // At most 1024 in a valid image.  The check also prevents an overflow of last_dc.
          const int32_t mean = last_dc[i] * state.quant[c[i].quant][0];
          if (mean > 8191 || mean < -8191) return kFallback;
        }
      }
    }
    if (!wanted) continue;
    if (!transform_row(memory, row, mcus, (in.W + c[0].h - 1) / c[0].h)) return kFallback;
    // Interpolation of the last row of pixels needs the chroma row below it.
    const int64_t end = row + 1 == rows ? in.H : (row + 1) * 8 * c[0].v - (c[0].v == 2);
    if (mirror)
      streaming ? write_rows<true, true>(memory, in, written, end, planes, pixels)
                : write_rows<true, false>(memory, in, written, end, planes, pixels);
    else
      streaming ? write_rows<false, true>(memory, in, written, end, planes, pixels)
                : write_rows<false, false>(memory, in, written, end, planes, pixels);
    written = end;
  }
  return 8 * bytes - bits.taken(memory.codes) < 8 && data[at + 1] == 0xD9 ? kDecoded : kFallback;
}

constexpr int64_t kMaxPrefetchBytes = 1 << 16;  // a fraction of the L2 cache

inline void jpeg_begin(char* workspace) {
  JpegState& state = *JpegMemory(workspace, 0, 0).state;
  __builtin_memset(state.built, 0, sizeof state.built);
}

inline void jpeg_decode(const Jpegs& in, char* workspace, uint8_t* status) {
  const JpegMemory memory(workspace, in.W, in.max_bytes);
  const int64_t size = 3 * in.H * in.W;
  // Images are scattered over the file: prefetch the next one while this one is decoded.
  const auto fetch = [&](int64_t n) __attribute__((always_inline)) {
    if (n == in.N) return;
    const int64_t bytes = in.bytes[n] < kMaxPrefetchBytes ? in.bytes[n] : kMaxPrefetchBytes;
    for (int64_t at = 0; at < bytes; at += 64) __builtin_prefetch(in.data[n] + at, 0, 2);
  };
  fetch(0);
  for (int64_t n = 0; n < in.N; ++n) {
    fetch(n + 1);
    float* const planes = in.planes ? in.planes + n * size : nullptr;
    uint8_t* const pixels = in.pixels ? in.pixels + n * size : nullptr;
    const bool mirror = in.mirror && in.mirror[n];
    status[n] = in.bytes[n] > in.max_bytes
                    ? kFallback
                    : decode_image(memory, in, in.data[n], in.bytes[n], mirror, planes, pixels);
  }
  wait_for_stores();
}

#endif
