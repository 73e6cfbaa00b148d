// SPDX-License-Identifier: Apache-2.0
// Decoded pictures to normalised planes: what a loader does to every pixel.
//
// Included by level.cc, into the namespace of a level.
#pragma once

#if defined(__AVX2__)

// Where in 48 bytes, 16 pixels of three colours, the bytes of one colour lie: for each of the three
// vectors that hold them; -128 takes none.  [mirrored][colour][vector]
struct Places {
  alignas(16) int8_t at[2][3][3][16];
  constexpr Places() : at() {
    for (int mirrored = 0; mirrored < 2; ++mirrored)
      for (int colour = 0; colour < 3; ++colour)
        for (int vector = 0; vector < 3; ++vector)
          for (int i = 0; i < 16; ++i) {
            const int byte = 3 * (mirrored ? 15 - i : i) + colour - 16 * vector;
            at[mirrored][colour][vector][i] = byte >= 0 && byte < 16 ? byte : -128;
          }
  }
};
constexpr Places kPlaces;

template <bool mirrored, int colour>
INLINE __m128i one_colour(const __m128i (&pixels)[3]) {
  const auto part = [&](int vector) __attribute__((always_inline)) {
    const auto* places = reinterpret_cast<const __m128i*>(kPlaces.at[mirrored][colour][vector]);
    return _mm_shuffle_epi8(pixels[vector], _mm_load_si128(places));
  };
  return _mm_or_si128(_mm_or_si128(part(0), part(1)), part(2));
}

// `around`: past the caches, for what is read much later; y is then aligned to 32 bytes.
template <bool around>
INLINE void put(__m128i bytes, __m256 factor, __m256 offset, float* y) {
  for (int half = 0; half < 2; ++half, bytes = _mm_srli_si128(bytes, 8), y += 8) {
    const __m256 x = _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(bytes));
    const __m256 value = _mm256_fmadd_ps(x, factor, offset);
    around ? _mm256_stream_ps(y, value) : _mm256_storeu_ps(y, value);
  }
}

// As many pixels of a row as fit; returns how many.
template <bool mirrored, bool around>
INLINE int64_t normalise_vectors(const uint8_t* row, int64_t W, int64_t P, float factor,
                                 float offset, float* y) {
  const __m256 factors = _mm256_set1_ps(factor), offsets = _mm256_set1_ps(offset);
  int64_t x = 0;
  for (; x + 16 <= W; x += 16) {
    const uint8_t* from = row + 3 * (mirrored ? W - 16 - x : x);
    __m128i pixels[3];
    for (int i = 0; i < 3; ++i)
      pixels[i] = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from + 16 * i));
    put<around>(one_colour<mirrored, 0>(pixels), factors, offsets, y + x);
    put<around>(one_colour<mirrored, 1>(pixels), factors, offsets, y + P + x);
    put<around>(one_colour<mirrored, 2>(pixels), factors, offsets, y + 2 * P + x);
  }
  return x;
}

INLINE void wait_for_stores() { _mm_sfence(); }

#else

template <bool mirrored, bool around>
INLINE int64_t normalise_vectors(const uint8_t*, int64_t, int64_t, float, float, float*) {
  return 0;
}

INLINE void wait_for_stores() {}

#endif

template <bool mirrored, bool around>
void normalise_image(const Pictures& in, const uint8_t* row, float* y) {
  const int64_t W = in.W, P = in.H * in.W;
  for (int64_t line = 0; line < in.H; ++line, row += 3 * W, y += W) {
    int64_t x = normalise_vectors<mirrored, around>(row, W, P, in.factor, in.offset, y);
    for (; x < W; ++x)
      for (int colour = 0; colour < 3; ++colour)
        y[colour * P + x] = row[3 * (mirrored ? W - 1 - x : x) + colour] * in.factor + in.offset;
  }
}

template <bool around>
void normalise_all(const Pictures& in, float* y) {
  const int64_t size = 3 * in.H * in.W;
  for (int64_t n = 0; n < in.N; ++n, y += size) {
    const uint8_t* picture = in.pixels + in.rows[n] * size;
    if (in.mirror[n])
      normalise_image<true, around>(in, picture, y);
    else
      normalise_image<false, around>(in, picture, y);
  }
  if (around) wait_for_stores();
}

inline void normalise(const Pictures& in, float* y) {
  const bool aligned = reinterpret_cast<uintptr_t>(y) % 32 == 0 && in.W % 8 == 0;
  if (aligned)
    normalise_all<true>(in, y);
  else
    normalise_all<false>(in, y);
}
