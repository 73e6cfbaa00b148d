// SPDX-License-Identifier: Apache-2.0
// Rows of luma and chroma samples to rows of red, green and blue, and these to what is delivered.
//
// Chroma that was sampled once for two pixels is brought between its samples by a triangle, three
// parts of the nearer one and one of the farther ("fancy upsampling" in libjpeg); BT.601 in whole
// numbers of 16 bits behind the point.  Both to the last bit as libjpeg-turbo does them.
//
// Included by level.cc, into the namespace of a level.
#pragma once

#if defined(__SSE2__)

constexpr int kNumbers = sizeof(Lanes16) / 2;  // of 16 bits in a vector

INLINE __m128i load_bytes(const void* p) {
  return _mm_loadu_si128(static_cast<const __m128i*>(p));
}
INLINE void store_bytes(void* p, __m128i v) { _mm_storeu_si128(static_cast<__m128i*>(p), v); }

INLINE Lanes16 load_numbers(const int16_t* p) {
  Lanes16 v;
  __builtin_memcpy(&v, p, sizeof v);
  return v;
}
INLINE void store_numbers(int16_t* p, Lanes16 v) { __builtin_memcpy(p, &v, sizeof v); }

// As many bytes as numbers.
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

// Numbers to bytes, 0 and 255 for those beyond.
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

// Numbers of a and b in turns, as two vectors.
INLINE void in_turns(Lanes16 a, Lanes16 b, int16_t* out) {
  const Pair parts = pair(a, b);
#if defined(__AVX512BW__)
  const __m512i first = _mm512_set_epi64(11, 10, 3, 2, 9, 8, 1, 0);
  const __m512i second = _mm512_set_epi64(15, 14, 7, 6, 13, 12, 5, 4);
  store_numbers(out, _mm512_permutex2var_epi64(parts.low, first, parts.high));
  store_numbers(out + kNumbers, _mm512_permutex2var_epi64(parts.low, second, parts.high));
#elif defined(__AVX2__)
  store_numbers(out, _mm256_permute2x128_si256(parts.low, parts.high, 0x20));
  store_numbers(out + kNumbers, _mm256_permute2x128_si256(parts.low, parts.high, 0x31));
#else
  store_numbers(out, parts.low);
  store_numbers(out + kNumbers, parts.high);
#endif
}

// One chroma sample for each pixel of a row, less 128.
//
// near, far: rows of `count` samples, the one that covers the pixels and the one beyond their edge,
//   which are the same where chroma is sampled as often as luma from top to bottom (v 1); the first
//   and the last sample stand once more in front and behind
// below: whether `far` is below
// out: room for h count and twice a vector
template <int h, int v>
INLINE void upsample_row(const uint8_t* near, const uint8_t* far, int64_t count, bool below,
                         int16_t* out) {
  const auto all = [](int value) __attribute__((always_inline)) {
    return OF_WIDTH(set1_epi16)(short(value));
  };
  const auto thrice = [](Lanes16 a) __attribute__((always_inline)) {
    return add16(a, add16(a, a));
  };
  // The nearer row alone, or three parts of it and one of the farther one.
  const auto column = [&](int64_t x) __attribute__((always_inline)) {
    const Lanes16 here = load_samples(near + x);
    return v == 2 ? add16(thrice(here), load_samples(far + x)) : here;
  };
  const Lanes16 middle = all(128);
  for (int64_t x = 0; x < count; x += kNumbers) {
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
    in_turns(sub16(OF_WIDTH(srli_epi16)(left, bits), middle),
             sub16(OF_WIDTH(srli_epi16)(right, bits), middle), out + 2 * x);
  }
}

// A row of red, green and blue, each `room` bytes from the last, of luma and chroma less 128.
INLINE void colour_row(const uint8_t* luma, const int16_t* blue, const int16_t* red, int64_t W,
                       int64_t room, uint8_t* out) {
  // 1.402, 0.344136, 0.714136 and 1.772 times 2^16, less whole numbers, so that 16 bits hold them.
  constexpr int for_red = 91881 - 65536, for_blue = 116130 - 2 * 65536;
  constexpr int green_of_blue = -22554, green_of_red = 65536 - 46802;
  for (int64_t x = 0; x < W; x += kNumbers) {
    const Lanes16 y = load_samples(luma + x), b = load_numbers(blue + x), r = load_numbers(red + x);
    const Pair both = pair(b, r);
    store_samples(out + x, add16(add16(y, r), rounded<16>(times<0, for_red>(both))));
    store_samples(out + room + x,
                  add16(sub16(y, r), rounded<16>(times<green_of_blue, green_of_red>(both))));
    store_samples(out + 2 * room + x,
                  add16(add16(y, add16(b, b)), rounded<16>(times<for_blue, 0>(both))));
  }
}

// A row of one colour (W,) to a row of a plane.
template <bool mirrored, bool around>
INLINE void plane_row(const uint8_t* row, int64_t W, float factor, float offset, float* y) {
  int64_t x = 0;
#if defined(__AVX2__)
  const __m256 factors = _mm256_set1_ps(factor), offsets = _mm256_set1_ps(offset);
  const __m128i back = _mm_set_epi8(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
  for (; x + 16 <= W; x += 16) {
    const __m128i bytes = mirrored ? _mm_shuffle_epi8(load_bytes(row + W - 16 - x), back)
                                   : load_bytes(row + x);
    put<around>(bytes, factors, offsets, y + x);
  }
#endif
  for (; x < W; ++x) y[x] = row[mirrored ? W - 1 - x : x] * factor + offset;
}

// Which of 16 bytes of a colour stands where in a third of 16 pixels; -128: that of another colour.
struct ColourPlaces {
  alignas(16) int8_t at[3][3][16];  // [third][colour]
  constexpr ColourPlaces() : at() {
    for (int i = 0; i < 48; ++i)
      for (int colour = 0; colour < 3; ++colour)
        at[i / 16][colour][i % 16] = i % 3 == colour ? i / 3 : -128;
  }
};
constexpr ColourPlaces kColourPlaces;

// Rows of three colours (W,) to a row of pixels (W, 3).
INLINE void pixel_row(const uint8_t* const (&rows)[3], int64_t W, uint8_t* out) {
  int64_t x = 0;
#if defined(__AVX2__)
  for (; x + 16 <= W; x += 16) {
    const __m128i colours[3] = {load_bytes(rows[0] + x), load_bytes(rows[1] + x),
                                load_bytes(rows[2] + x)};
    for (int part = 0; part < 3; ++part) {
      const auto of = [&](int colour) __attribute__((always_inline)) {
        return _mm_shuffle_epi8(colours[colour], load_bytes(kColourPlaces.at[part][colour]));
      };
      store_bytes(out + 3 * x + 16 * part, _mm_or_si128(_mm_or_si128(of(0), of(1)), of(2)));
    }
  }
#endif
  for (; x < W; ++x)
    for (int colour = 0; colour < 3; ++colour) out[3 * x + colour] = rows[colour][x];
}

#endif
