// SPDX-License-Identifier: Apache-2.0
// JPEG pictures to normalised planes, or to pixels, in one pass: a row of blocks is decoded,
// transformed, coloured and written while it is in the first cache.
//
// Takes what face sets are made of: sequential Huffman-coded JPEGs of 8 bits, grey or YCbCr with
// luma sampled once or twice each way, all colours in one scan, whole.  Everything else, and every
// stream with something odd in it, is left to a decoder for all JPEGs.  The pixels are those of
// libjpeg-turbo as it comes (JDCT_ISLOW, fancy upsampling; 4:4:0 as since 2.1), to the last bit.
//
// Included by level.cc, into the namespace of a level.
#pragma once

#if defined(__SSE2__)

struct JpegComponent {
  int id, h, v, quant, dc, ac;
};

// Of the pictures decoded one after the other: working memory and the tables of the last one.
struct JpegState {
  HuffmanTable tables[2][2];      // [dc or ac][identifier]
  uint8_t sources[2][2][16 + 256];  // what they were built of: most pictures of a set have the same
  bool built[2][2];
  int16_t quant[4][kBlock];
  JpegComponent components[3];
  int count;             // of components
  int restart_interval;  // 0: none
};

// What stands in front of the codes.  Returns where these begin; 0 where it is not of the kind, or
// has to be turned and `turned` are not wanted.
inline int64_t read_front(JpegState& state, const uint8_t* data, int64_t size, int64_t H, int64_t W,
                          bool turned) {
  constexpr int64_t kMostPixels = 65500;  // across and down, of libjpeg
  if (H < 1 || W < 1 || H > kMostPixels || W > kMostPixels) return 0;
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
          __builtin_memcpy(source, in + 1, 16 + symbols);  // once: a mapped file may change
          built = build(state.tables[kind][identifier], source, source + 16, kind == 0);
          if (!built) return 0;
        }
        table_there[kind][identifier] = true;
        in += 17 + symbols;
      }
    } else if (marker == 0xDB) {
      while (in < end) {
        const int identifier = *in;  // with 8 bits for each number
        if (identifier > 3 || end - in < 1 + kBlock) return 0;
        for (int i = 0; i < kBlock; ++i) state.quant[identifier][kOrder.at[i]] = in[1 + i];
        quant_there[identifier] = true;
        in += 1 + kBlock;
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
    c[0].h = c[0].v = 1;  // alone in its scan, its blocks come row by row
    return at;
  }
  const bool numbered = c[0].id == 1 && c[1].id == 2 && c[2].id == 3;
  if (!(jfif || (adobe ? transform == 1 : numbered))) return 0;
  if (c[0].h > 2 || c[0].v > 2) return 0;
  if (c[0].h == 2 && W < 5) return 0;  // where libjpeg leaves the triangle out
  for (int i = 1; i < 3; ++i)
    if (c[i].h != 1 || c[i].v != 1) return 0;
  return at;
}

// Where things lie in the working memory of a thread, which is aligned to 64 bytes.
struct JpegMemory {
  JpegState* state;
  uint8_t* codes;
  int16_t* blocks[3];
  uint8_t* samples[3];  // of two rows of MCUs, with room for one in front of each row
  int64_t stride;       // of samples
  int16_t* chroma;      // twice `stride`
  uint8_t* colours;     // 3 times `stride`
  int64_t bytes;

  JpegMemory(char* memory, int64_t W, int64_t most) {
    char* next = memory;
    const auto take = [&](int64_t size) __attribute__((always_inline)) {
      char* piece = next;
      next += round_up(size, 64);
      return piece;
    };
    // Blocks of a row: those of a MCU of 16 pixels, and the others of the last vector.
    const int64_t across = (W + 15) / 16 * 2 + 4;
    stride = 8 * across + 128;
    state = reinterpret_cast<JpegState*>(take(sizeof(JpegState)));
    codes = reinterpret_cast<uint8_t*>(take(most + BitReader::kSlack));
    for (int i = 0; i < 3; ++i)
      blocks[i] = reinterpret_cast<int16_t*>(take(2 * across * kBlock * sizeof(int16_t) + 64));
    for (int i = 0; i < 3; ++i)
      samples[i] = reinterpret_cast<uint8_t*>(take(32 * stride + 64)) + 64;
    chroma = reinterpret_cast<int16_t*>(take(2 * stride * sizeof(int16_t)));
    colours = reinterpret_cast<uint8_t*>(take(3 * stride));
    bytes = next - memory;
  }
};

inline int64_t jpeg_bytes(int64_t W, int64_t most) { return JpegMemory(nullptr, W, most).bytes; }

// Row `row` of a component, of the last two rows of MCUs.
INLINE uint8_t* sample_row(const JpegMemory& memory, int i, int64_t row) {
  return memory.samples[i] + row % (16 * memory.state->components[i].v) * memory.stride;
}

// Rows of pixels from `top` to `end`.
template <bool mirrored, bool around>
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
      const int64_t far = luma.v == 1 ? near : below ? (near + 1 < down ? near + 1 : near)
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
        plane_row<mirrored, around>(colours[colour], in.W, in.factor, in.offset,
                                    planes + (colour * in.H + row) * in.W);
    else
      pixel_row(colours, in.W, pixels + row * 3 * in.W);
  }
}

// The blocks of a row of MCUs to samples, of which `across` stand in a row of chroma; false where
// there are numbers beyond those of pictures.
inline bool transform_row(const JpegMemory& memory, int64_t row, int64_t mcus, int64_t across) {
  for (int i = 0; i < memory.state->count; ++i) {
    const JpegComponent& component = memory.state->components[i];
    const int64_t count = mcus * component.h * component.v, stride = memory.stride;
    const int16_t* quant = memory.state->quant[component.quant];
    uint8_t* samples = sample_row(memory, i, row * 8 * component.v);
    const int h = component.h, v = component.v;
    for (int64_t first = 0; first < count; first += kBlocksTogether) {
      const auto place = [&](int k) __attribute__((always_inline)) {
        const int64_t block = first + k, mcu = block / (h * v), inside = block % (h * v);
        return samples + (inside / h) * 8 * stride + (mcu * h + inside % h) * 8;
      };
      if (!idct(memory.blocks[i] + first * kBlock, quant, stride, place)) return false;
    }
    for (int line = 0; i && line < 8; ++line) {  // for the triangle
      uint8_t* const begin = samples + line * stride;
      begin[-1] = begin[0];
      begin[across] = begin[across - 1];
    }
  }
  return true;
}

// Why a picture is not decoded whose codes cannot be read on: an incomplete code is the last thing in
// front of the end-of-image marker, or something else is wrong with it.
__attribute__((noinline, cold)) inline uint8_t why_not(const uint8_t* data, int64_t marker,
                                                       int64_t size, int64_t bits_left) {
  if (bits_left >= HuffmanTable::kMostBits) return kLeft;
  while (marker + 2 < size && data[marker + 1] == 0xFF) ++marker;  // fill bytes
  return data[marker + 1] == 0xD9 ? kCutOff : kLeft;
}

// One picture; without planes and pixels its codes are read alone.  Returns what became of it.
inline uint8_t decode_picture(const JpegMemory& memory, const Jpegs& in, const uint8_t* data,
                              int64_t size, bool mirror, float* planes, uint8_t* pixels) {
  JpegState& state = *memory.state;
  const bool wanted = planes || pixels;
  int64_t at = read_front(state, data, size, in.H, in.W, !wanted);
  if (!at) return kLeft;
  const JpegComponent* c = state.components;
  const int64_t mcus = (in.W + 8 * c[0].h - 1) / (8 * c[0].h);
  const int64_t rows = (in.H + 8 * c[0].v - 1) / (8 * c[0].v);
  const bool around = planes && reinterpret_cast<uintptr_t>(planes) % 32 == 0 && in.W % 8 == 0;
  const int64_t interval = state.restart_interval ? state.restart_interval : rows * mcus;
  const int lumas = c[0].h * c[0].v;
  for (int i = 0; i < state.count; ++i)  // those that only fill the last vector
    __builtin_memset(memory.blocks[i] + mcus * c[i].h * c[i].v * kBlock, 0,
                     (kBlocksTogether - 1) * kBlock * sizeof(int16_t));
  int64_t until_restart = 0, bytes = 0, written = 0;
  int restarts = 0;
  int32_t last_dc[3] = {};
  BitReader bits(memory.codes);
  for (int64_t row = 0; row < rows; ++row) {
    for (int64_t mcu = 0; mcu < mcus; ++mcu) {
      if (until_restart == 0) {
        if (row + mcu) {
          const int64_t bits_left = 8 * bytes - bits.taken(memory.codes);
          if (bits_left >= 8) return kLeft;
          if (data[at + 1] != 0xD0 + (restarts++ & 7)) return why_not(data, at, size, bits_left);
          at += 2;
        }
        at = unstuff(data, at, size, memory.codes, bytes);
        if (at < 0) return kLeft;
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
        int16_t* block = memory.blocks[i] + mcu * here * kBlock;
        for (int k = 0; k < here; ++k, block += kBlock) {
          const bool read = read_block(bits, dc, ac, last_dc[i], block);
          const int64_t bits_left = 8 * bytes - bits.taken(memory.codes);
          if (!read || bits_left < 0) return why_not(data, at, size, bits_left);
          // Of a picture at most 1024, and so it cannot grow beyond its type.
          const int32_t mean = last_dc[i] * state.quant[c[i].quant][0];
          if (mean > 8191 || mean < -8191) return kLeft;
        }
      }
    }
    if (!wanted) continue;
    if (!transform_row(memory, row, mcus, (in.W + c[0].h - 1) / c[0].h)) return kLeft;
    // The last row of pixels wants the chroma below it.
    const int64_t end = row + 1 == rows ? in.H : (row + 1) * 8 * c[0].v - (c[0].v == 2);
    if (mirror)
      around ? write_rows<true, true>(memory, in, written, end, planes, pixels)
             : write_rows<true, false>(memory, in, written, end, planes, pixels);
    else
      around ? write_rows<false, true>(memory, in, written, end, planes, pixels)
             : write_rows<false, false>(memory, in, written, end, planes, pixels);
    written = end;
  }
  return 8 * bytes - bits.taken(memory.codes) < 8 && data[at + 1] == 0xD9 ? kDecoded : kLeft;
}

constexpr int64_t kFetched = 1 << 16;  // bytes at most: no more than a part of the second cache

inline void jpeg_begin(char* memory) {
  JpegState& state = *JpegMemory(memory, 0, 0).state;
  __builtin_memset(state.built, 0, sizeof state.built);
}

inline void jpeg_decode(const Jpegs& in, char* memory, uint8_t* left) {
  const JpegMemory here(memory, in.W, in.most);
  const int64_t size = 3 * in.H * in.W;
  // Pictures lie anywhere in the file: the next one is fetched from memory while this one is decoded.
  const auto fetch = [&](int64_t n) __attribute__((always_inline)) {
    if (n == in.N) return;
    const int64_t bytes = in.bytes[n] < kFetched ? in.bytes[n] : kFetched;
    for (int64_t at = 0; at < bytes; at += 64) __builtin_prefetch(in.data[n] + at, 0, 2);
  };
  fetch(0);
  for (int64_t n = 0; n < in.N; ++n) {
    fetch(n + 1);
    float* const planes = in.planes ? in.planes + n * size : nullptr;
    uint8_t* const pixels = in.pixels ? in.pixels + n * size : nullptr;
    const bool mirror = in.mirror && in.mirror[n];
    left[n] = in.bytes[n] > in.most
                  ? kLeft
                  : decode_picture(here, in, in.data[n], in.bytes[n], mirror, planes, pixels);
  }
  wait_for_stores();
}

#endif
