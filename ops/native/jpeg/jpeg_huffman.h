// SPDX-License-Identifier: Apache-2.0
// Huffman decoding of a sequential JPEG to DCT coefficients (ITU-T T.81, annex F.2.2).
//
// Included by level.cc, into the namespace of a level.
#pragma once

// Decoding table.  An entry describes a code and the number that follows it:
//   bits 0 to 7: length of code and number together, in bits (first, so that a shift needs no mask)
//   bits 8 to 15: distance from the last coefficient to this one, or kEndOfBlock
//   bits 16 to 23: length of the code in bits
//   bits 24 to 31: length of the number in bits
// An entry of 0 marks a code longer than kTableBits, or an invalid code.
struct HuffmanTable {
  static constexpr int kTableBits = 10;
  static constexpr int kMaxCodeBits = 16;
  static constexpr uint32_t kEndOfBlock = 128;  // beyond 63 plus the longest run
  uint32_t first[1 << kTableBits];              // indexed by the next kTableBits bits
  // For each code length, in bits: the first 16-bit window above all codes of that length; and the
  // index of the entry of its first code, minus that code.
  uint32_t limit[kMaxCodeBits + 1];
  int32_t place[kMaxCodeBits + 1];
  uint32_t entries[256];
};

// Builds a table from the number of codes of each length and their symbols.  Returns false if an
// 8-bit JPEG cannot have these codes.
inline bool build(HuffmanTable& table, const uint8_t* counts, const uint8_t* symbols, bool dc) {
  __builtin_memset(table.first, 0, sizeof table.first);
  uint32_t code = 0;
  int place = 0;
  for (int bits = 1; bits <= HuffmanTable::kMaxCodeBits; ++bits) {
    table.place[bits] = place - int32_t(code);
    for (int i = 0; i < counts[bits - 1]; ++i, ++place, ++code) {
      if (code >= (1u << bits) || place >= 256)
        return false;  // the file may change during the read
      const uint32_t number = dc ? symbols[place] : symbols[place] & 15;
      const uint32_t run = dc ? 0 : symbols[place] >> 4;
      if (number > (dc ? 11u : 10u)) return false;
      // A symbol without a number means 16 zeros (run 15) or end of block (run 0).
      if (!dc && number == 0 && run != 15 && run != 0) return false;
      const uint32_t step = dc ? 0 : number == 0 && run == 0 ? HuffmanTable::kEndOfBlock : run + 1;
      const uint32_t entry = (bits + number) | step << 8 | bits << 16 | number << 24;
      table.entries[place] = entry;
      if (bits <= HuffmanTable::kTableBits) {
        const int free = HuffmanTable::kTableBits - bits;
        for (uint32_t k = 0; k < (1u << free); ++k) table.first[(code << free) + k] = entry;
      }
    }
    if (code >= (1u << bits)) return false;  // a code of all ones is invalid
    table.limit[bits] = code << (HuffmanTable::kMaxCodeBits - bits);
    code <<= 1;
  }
  return true;
}

// Copies entropy-coded data up to the next marker and drops the stuffed zero bytes.  Returns the
// offset of the marker, or -1 if there is none.  Sets `bytes` to the number of bytes written.
inline int64_t unstuff(const uint8_t* data, int64_t at, int64_t size, uint8_t* out,
                       int64_t& bytes) {
  bytes = 0;
  while (at < size) {
    const void* found = memchr(data + at, 0xFF, size - at);
    if (!found) return -1;
    const int64_t stop = static_cast<const uint8_t*>(found) - data;
    if (stop + 1 >= size) return -1;
    const bool stuffed = data[stop + 1] == 0;
    __builtin_memcpy(out + bytes, data + at, stop - at + stuffed);
    bytes += stop - at + stuffed;
    if (!stuffed) return stop;
    at = stop + 2;
  }
  return -1;
}

// Bit reader of unstuffed entropy-coded data.  It may read up to kSlackBytes beyond the end.
struct BitReader {
  static constexpr int kSlackBytes =
      512;              // a block has at most 27 + 63 * 26 bits; a read has 8 bytes
  uint64_t window = 0;  // the next bits, from the most significant one
  uint32_t left = 0;    // number of valid bits in the window
  const uint8_t* next;

  explicit BitReader(const uint8_t* begin) : next(begin) {}

  // Fills the window to at least 56 bits.
  INLINE void refill() {
    uint64_t more;
    __builtin_memcpy(&more, next, sizeof more);
    window |= __builtin_bswap64(more) >> left;
    next += (63 - left) >> 3;
    left |= 56;
  }
  INLINE void skip(uint32_t bits) {
    window <<= bits & 63;
    left -= bits & 63;
  }
  int64_t taken(const uint8_t* begin) const { return (next - begin) * 8 - left; }
};

// Returns the entry of a code longer than kTableBits; 0 if the code is invalid.
__attribute__((noinline, cold)) inline uint32_t look_up_long(const HuffmanTable& table,
                                                             uint64_t window) {
  const uint32_t next = window >> 48;
  int bits = HuffmanTable::kTableBits + 1;
  while (bits <= HuffmanTable::kMaxCodeBits && next >= table.limit[bits]) ++bits;
  if (bits > HuffmanTable::kMaxCodeBits) return 0;
  return table.entries[table.place[bits] + int32_t(next >> (HuffmanTable::kMaxCodeBits - bits))];
}

INLINE uint32_t look_up(const HuffmanTable& table, const uint32_t* first, uint64_t window) {
  const uint32_t entry = first[window >> (64 - HuffmanTable::kTableBits)];
  return __builtin_expect(entry != 0, 1) ? entry : look_up_long(table, window);
}

// Returns the number that follows a code.  It is positive if its first bit is 1.
INLINE int32_t number(uint64_t window, uint32_t entry) {
  const uint32_t all = (uint32_t(1) << (entry >> 24)) - 1;  // mask of the number's bits
  const int32_t bits = int32_t(window >> (-entry & 63)) & all;
  const bool positive = int64_t(window << (entry >> 16 & 63)) < 0;
  return positive ? bits : bits - all;
}

// Zigzag order: the position in the block of each coded coefficient.  Indices above 63, which an
// invalid stream or an end of block produces, map to the spare value behind the block.
struct ZigzagOrder {
  uint8_t at[64 + HuffmanTable::kEndOfBlock];
  constexpr ZigzagOrder() : at() {
    int x = 0, y = 0, step = -1;  // -1: up and to the right; 1: down and to the left
    for (int i = 0; i < 64; ++i) {
      at[i] = 8 * y + x;
      if (step < 0 ? x == 7 : y == 7) {
        step < 0 ? ++y : ++x;
        step = -step;
      } else if (step < 0 ? y == 0 : x == 0) {
        step < 0 ? ++x : ++y;
        step = -step;
      } else {
        x -= step;
        y += step;
      }
    }
    for (int i = 64; i < int(sizeof at); ++i) at[i] = 64;
  }
};
constexpr ZigzagOrder kZigzag;
constexpr int kBlockValues = 64;  // coefficients of a block

// Reads one block of coefficients (8, 8) before dequantisation.  May also write the spare value
// behind it.  Returns false if the stream is invalid.
INLINE bool read_block(BitReader& bits, const HuffmanTable& dc, const HuffmanTable& ac,
                       int32_t& last_dc, int16_t* block) {
  __builtin_memset(block, 0, kBlockValues * sizeof *block);
  const uint32_t* first = ac.first;
  asm("" : "+r"(first));  // keep it in a register: the lookup is on the critical path
  bits.refill();
  uint32_t entry = look_up(dc, dc.first, bits.window);
  if (!entry) return false;
  last_dc += number(bits.window, entry);
  block[0] = int16_t(last_dc);
  bits.skip(entry);
  uint32_t k = 0;
  const auto one = [&]() __attribute__((always_inline)) {
    entry = look_up(ac, first, bits.window);
    if (__builtin_expect(!entry, 0)) return false;
    k += entry >> 8 & 255;
    block[kZigzag.at[k]] = int16_t(number(bits.window, entry));
    bits.skip(entry);
    return k < 63;
  };
  while (one()) {  // two codes between refills: at most 27 bits each
    bits.refill();
    if (!one()) break;
  }
  return entry && (k == 63 || k >= HuffmanTable::kEndOfBlock);
}
