// SPDX-License-Identifier: Apache-2.0
// Huffman codes of a sequential JPEG to coefficients (ITU-T T.81, annex F.2.2).
//
// Included by level.cc, into the namespace of a level.
#pragma once

// Of a code and the number behind it.  Low byte first: a shift takes it as it is.
//   bits 0 to 7: bits of both together; 8 to 15: coefficients from the last one to this one,
//   kEndOfBlock for no more; 16 to 23: bits of the code; 24 to 31: bits of the number.
// All bits together 0: a longer code than the table is for, or none.
struct HuffmanTable {
  static constexpr int kBits = 10;
  static constexpr int kMostBits = 16;
  static constexpr uint32_t kEndOfBlock = 128;  // more than 63 and the longest run
  uint32_t first[1 << kBits];  // by the next bits
  // Longer codes, by their number of bits: all below `limit`, as the next 16 bits, and where the
  // entry of the first one lies, less its code.
  uint32_t limit[kMostBits + 1];
  int32_t place[kMostBits + 1];
  uint32_t entries[256];
};

// Builds a table of codes: how many have each number of bits, and what they stand for.  False where
// they are none of an 8-bit JPEG.
inline bool build(HuffmanTable& table, const uint8_t* counts, const uint8_t* symbols, bool dc) {
  __builtin_memset(table.first, 0, sizeof table.first);
  uint32_t code = 0;
  int place = 0;
  for (int bits = 1; bits <= HuffmanTable::kMostBits; ++bits) {
    table.place[bits] = place - int32_t(code);
    for (int i = 0; i < counts[bits - 1]; ++i, ++place, ++code) {
      if (code >= (1u << bits) || place >= 256) return false;  // also if memory changes meanwhile
      const uint32_t number = dc ? symbols[place] : symbols[place] & 15;
      const uint32_t run = dc ? 0 : symbols[place] >> 4;
      if (number > (dc ? 11u : 10u)) return false;
      // Without a number it stands for 16 zeros if it says 15, else for the end: only 0 is in use.
      if (!dc && number == 0 && run != 15 && run != 0) return false;
      const uint32_t step = dc ? 0 : number == 0 && run == 0 ? HuffmanTable::kEndOfBlock : run + 1;
      const uint32_t entry = (bits + number) | step << 8 | bits << 16 | number << 24;
      table.entries[place] = entry;
      if (bits <= HuffmanTable::kBits) {
        const int free = HuffmanTable::kBits - bits;
        for (uint32_t k = 0; k < (1u << free); ++k) table.first[(code << free) + k] = entry;
      }
    }
    if (code >= (1u << bits)) return false;  // no code may be all ones
    table.limit[bits] = code << (HuffmanTable::kMostBits - bits);
    code <<= 1;
  }
  return true;
}

// Copies codes up to the next marker without stuffed bytes.  Returns where the marker is, -1 where
// there is none; `bytes` are those written.
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

// The bits of a segment of codes without stuffed bytes; at least kSlack bytes may be read behind it.
struct BitReader {
  static constexpr int kSlack = 512;  // a block has 27 + 63 * 26 bits at most, and 8 bytes are read
  uint64_t window = 0;  // the next bits from the highest one on
  uint32_t left = 0;    // of them, those that count
  const uint8_t* next;

  explicit BitReader(const uint8_t* begin) : next(begin) {}

  // At least 56 bits from now on.
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

// The entry of a longer code; 0 where there is none.
__attribute__((noinline, cold)) inline uint32_t look_up_long(const HuffmanTable& table,
                                                             uint64_t window) {
  const uint32_t next = window >> 48;
  int bits = HuffmanTable::kBits + 1;
  while (bits <= HuffmanTable::kMostBits && next >= table.limit[bits]) ++bits;
  if (bits > HuffmanTable::kMostBits) return 0;
  return table.entries[table.place[bits] + int32_t(next >> (HuffmanTable::kMostBits - bits))];
}

INLINE uint32_t look_up(const HuffmanTable& table, const uint32_t* first, uint64_t window) {
  const uint32_t entry = first[window >> (64 - HuffmanTable::kBits)];
  return __builtin_expect(entry != 0, 1) ? entry : look_up_long(table, window);
}

// The number behind a code: its first bit says whether it is above zero.
INLINE int32_t number(uint64_t window, uint32_t entry) {
  const uint32_t all = (uint32_t(1) << (entry >> 24)) - 1;  // bits of the number
  const int32_t bits = int32_t(window >> (-entry & 63)) & all;
  const bool positive = int64_t(window << (entry >> 16 & 63)) < 0;
  return positive ? bits : bits - all;
}

// Where the coefficients stand that come one after the other; those that do not count, in a wrong
// stream or at the end of a block, behind the last one.
struct Order {
  uint8_t at[64 + HuffmanTable::kEndOfBlock];
  constexpr Order() : at() {
    int x = 0, y = 0, step = -1;  // up and to the right, then down and to the left
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
constexpr Order kOrder;
constexpr int kBlock = 64;  // coefficients of a block

// One block of coefficients (8, 8), not multiplied yet, and one value behind it that is written too;
// false where the stream is wrong.
INLINE bool read_block(BitReader& bits, const HuffmanTable& dc, const HuffmanTable& ac,
                       int32_t& last_dc, int16_t* block) {
  __builtin_memset(block, 0, kBlock * sizeof *block);
  const uint32_t* first = ac.first;
  asm("" : "+r"(first));  // in a register: its address is in the chain that everything waits for
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
    block[kOrder.at[k]] = int16_t(number(bits.window, entry));
    bits.skip(entry);
    return k < 63;
  };
  while (one()) {  // two of them between refills: 27 bits or 26 each
    bits.refill();
    if (!one()) break;
  }
  return entry && (k == 63 || k >= HuffmanTable::kEndOfBlock);
}
