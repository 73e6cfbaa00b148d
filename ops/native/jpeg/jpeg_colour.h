// SPDX-License-Identifier: Apache-2.0
// Chroma upsampling, YCbCr to RGB conversion and output of rows.
//
// Upsampling weights the nearer chroma sample by 3/4 and the farther one by 1/4 (libjpeg's "fancy
// upsampling").  The conversion follows BT.601 in fixed point with 16 fraction bits.  Both equal
// libjpeg-turbo bit by bit.
//
// Included by level.cc, into the namespace of a level.
#pragma once

#if defined(__SSE2__)

constexpr int kVectorValues = sizeof(Lanes16) / 2;  // 16-bit values of a vector

INLINE __m128i load_bytes(const void* p) { return _mm_loadu_si128(static_cast<const __m128i*>(p)); }
INLINE void store_bytes(void* p, __m128i v) { _mm_storeu_si128(static_cast<__m128i*>(p), v); }

INLINE Lanes16 load_numbers(const int16_t* p) {
  Lanes16 v;
  __builtin_memcpy(&v, p, sizeof v);
  return v;
}
INLINE void store_numbers(int16_t* p, Lanes16 v) { __builtin_memcpy(p, &v, sizeof v); }

// Loads kVectorValues bytes and extends them to 16 bits.
INLINE Lanes16 load_samples(const uint8_t* p) {
#if defined(__AVX512BW__)
  return _mm512_cvtepu8_epi16(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
#elif defined(__AVX2__)
  return _mm256_cvtepu8_epi16(load_bytes(p));
#else
  return _mm_unpacklo_epi8(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)),
                           _mm_setzero_si128());
#endif
}

// Stores 16-bit values as bytes, clamped to 0 and 255.
INLINE void store_samples(uint8_t* p, Lanes16 v) {
#if defined(__AVX512BW__)
  const __m512i positive = _mm512_max_epi16(v, _mm512_setzero_si512());
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtusepi16_epi8(positive));
#elif defined(__AVX2__)
  const __m256i twice = _mm256_permute4x64_epi64(_mm256_packus_epi16(v, v), 0x08);
  store_bytes(p, _mm256_castsi256_si128(twice));
#else
  _mm_storel_epi64(reinterpret_cast<__m128i*>(p), _mm_packus_epi16(v, v));
#endif
}

// Interleaves a and b and stores the result as two vectors.
INLINE void store_interleaved(Lanes16 a, Lanes16 b, int16_t* out) {
  const Pair parts = pair(a, b);
#if defined(__AVX512BW__)
  const __m512i first = _mm512_set_epi64(11, 10, 3, 2, 9, 8, 1, 0);
  const __m512i second = _mm512_set_epi64(15, 14, 7, 6, 13, 12, 5, 4);
  store_numbers(out, _mm512_permutex2var_epi64(parts.low, first, parts.high));
  store_numbers(out + kVectorValues, _mm512_permutex2var_epi64(parts.low, second, parts.high));
#elif defined(__AVX2__)
  store_numbers(out, _mm256_permute2x128_si256(parts.low, parts.high, 0x20));
  store_numbers(out + kVectorValues, _mm256_permute2x128_si256(parts.low, parts.high, 0x31));
#else
  store_numbers(out, parts.low);
  store_numbers(out + kVectorValues, parts.high);
#endif
}

// Computes one chroma sample, minus 128, for each pixel of a row.
//
// h, v: horizontal and vertical ratio of luma to chroma samples, 1 or 2
// near, far: rows of `count` chroma samples: the row that covers the pixels, and the other adjacent
//   row; both are the same row if v is 1. A copy of the first sample precedes each row and a copy
//   of the last one follows it
// below: whether `far` is below `near`
// out: h * count values; the array needs padding of two vectors
template <int h, int v>
INLINE void upsample_row(const uint8_t* near, const uint8_t* far, int64_t count, bool below,
                         int16_t* out) {
  const auto all = [](int value) __attribute__((always_inline)) {
    return OF_WIDTH(set1_epi16)(short(value));
  };
  const auto thrice = [](Lanes16 a) __attribute__((always_inline)) {
    return add16(a, add16(a, a));
  };
  // The nearer row, or 3 times the nearer row plus the farther row.
  const auto column = [&](int64_t x) __attribute__((always_inline)) {
    const Lanes16 here = load_samples(near + x);
    return v == 2 ? add16(thrice(here), load_samples(far + x)) : here;
  };
  const Lanes16 middle = all(128);
  for (int64_t x = 0; x < count; x += kVectorValues) {
    const Lanes16 here = column(x);
    if (h == 1) {
      const Lanes16 half = all(below ? 2 : 1);
      store_numbers(out + x,
                    sub16(v == 2 ? OF_WIDTH(srli_epi16)(add16(here, half), 2) : here, middle));
      continue;
    }
    constexpr int bits = v == 2 ? 4 : 2;
    const Lanes16 most = thrice(here);
    const Lanes16 left = add16(add16(most, column(x - 1)), all(v == 2 ? 8 : 1));
    const Lanes16 right = add16(add16(most, column(x + 1)), all(v == 2 ? 7 : 2));
    store_interleaved(sub16(OF_WIDTH(srli_epi16)(left, bits), middle),
                      sub16(OF_WIDTH(srli_epi16)(right, bits), middle), out + 2 * x);
  }
}

// Converts luma and chroma (minus 128) to rows of red, green and blue, `stride` bytes apart.
INLINE void colour_row(const uint8_t* luma, const int16_t* blue, const int16_t* red, int64_t W,
                       int64_t stride, uint8_t* out) {
  // 1.402, 0.344136, 0.714136 and 1.772 times 2^16, minus integers, to fit into 16 bits.
  constexpr int for_red = 91881 - 65536, for_blue = 116130 - 2 * 65536;
  constexpr int green_of_blue = -22554, green_of_red = 65536 - 46802;
  for (int64_t x = 0; x < W; x += kVectorValues) {
    const Lanes16 y = load_samples(luma + x), b = load_numbers(blue + x), r = load_numbers(red + x);
    const Pair both = pair(b, r);
    store_samples(out + x, add16(add16(y, r), rounded<16>(times<0, for_red>(both))));
    store_samples(out + stride + x,
                  add16(sub16(y, r), rounded<16>(times<green_of_blue, green_of_red>(both))));
    store_samples(out + 2 * stride + x,
                  add16(add16(y, add16(b, b)), rounded<16>(times<for_blue, 0>(both))));
  }
}

// Normalises a row of one colour (W,) into a row of a plane.
template <bool mirrored, bool streaming>
INLINE void plane_row(const uint8_t* row, int64_t W, float factor, float offset, float* y) {
  int64_t x = 0;
#if defined(__AVX2__)
  const __m256 factors = _mm256_set1_ps(factor), offsets = _mm256_set1_ps(offset);
  const __m128i back = _mm_set_epi8(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
  for (; x + 16 <= W; x += 16) {
    const __m128i bytes =
        mirrored ? _mm_shuffle_epi8(load_bytes(row + W - 16 - x), back) : load_bytes(row + x);
    put<streaming>(bytes, factors, offsets, y + x);
  }
#endif
  for (; x < W; ++x) y[x] = row[mirrored ? W - 1 - x : x] * factor + offset;
}

// Shuffle masks that spread 16 bytes of one colour over the 48 bytes of 16 RGB pixels.  -128 leaves
// the byte to another colour.  [third of the 48 bytes][colour]
struct PixelMasks {
  alignas(16) int8_t at[3][3][16];
  constexpr PixelMasks() : at() {
    for (int i = 0; i < 48; ++i)
      for (int colour = 0; colour < 3; ++colour)
        at[i / 16][colour][i % 16] = i % 3 == colour ? i / 3 : -128;
  }
};
constexpr PixelMasks kPixelMasks;

// Interleaves rows of three colours (W,) to a row of pixels (W, 3).
INLINE void pixel_row(const uint8_t* const (&rows)[3], int64_t W, uint8_t* out) {
  int64_t x = 0;
#if defined(__AVX2__)
  for (; x + 16 <= W; x += 16) {
    const __m128i colours[3] = {load_bytes(rows[0] + x), load_bytes(rows[1] + x),
                                load_bytes(rows[2] + x)};
    for (int part = 0; part < 3; ++part) {
      const auto of = [&](int colour) __attribute__((always_inline)) {
        return _mm_shuffle_epi8(colours[colour], load_bytes(kPixelMasks.at[part][colour]));
      };
      store_bytes(out + 3 * x + 16 * part, _mm_or_si128(_mm_or_si128(of(0), of(1)), of(2)));
    }
  }
#endif
  for (; x < W; ++x)
    for (int colour = 0; colour < 3; ++colour) out[3 * x + colour] = rows[colour][x];
}

#endif
