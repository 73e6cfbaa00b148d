// SPDX-License-Identifier: Apache-2.0
// Conversion of decoded images (H, W, 3) to normalised planes (3, H, W).
//
// Included by level.cc, into the namespace of a level.
#pragma once

#if defined(__AVX2__)

// Shuffle masks that collect one colour of 16 RGB pixels from the three vectors that hold their 48
// bytes.  -128 selects no byte.  [mirrored][colour][vector]
struct ColourMasks {
  alignas(16) int8_t at[2][3][3][16];
  constexpr ColourMasks() : at() {
    for (int mirrored = 0; mirrored < 2; ++mirrored)
      for (int colour = 0; colour < 3; ++colour)
        for (int vector = 0; vector < 3; ++vector)
          for (int i = 0; i < 16; ++i) {
            const int byte = 3 * (mirrored ? 15 - i : i) + colour - 16 * vector;
            at[mirrored][colour][vector][i] = byte >= 0 && byte < 16 ? byte : -128;
          }
  }
};
constexpr ColourMasks kColourMasks;

template <bool mirrored, int colour>
INLINE __m128i one_colour(const __m128i (&pixels)[3]) {
  const auto part = [&](int vector) __attribute__((always_inline)) {
    const auto* mask = reinterpret_cast<const __m128i*>(kColourMasks.at[mirrored][colour][vector]);
    return _mm_shuffle_epi8(pixels[vector], _mm_load_si128(mask));
  };
  return _mm_or_si128(_mm_or_si128(part(0), part(1)), part(2));
}

// Writes 16 normalised values.  `streaming` stores bypass the caches, because the batch is read
// much later; they need y aligned to 32 bytes.
template <bool streaming>
INLINE void put(__m128i bytes, __m256 factor, __m256 offset, float* y) {
  for (int half = 0; half < 2; ++half, bytes = _mm_srli_si128(bytes, 8), y += 8) {
    const __m256 x = _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(bytes));
    const __m256 value = _mm256_fmadd_ps(x, factor, offset);
    streaming ? _mm256_stream_ps(y, value) : _mm256_storeu_ps(y, value);
  }
}

// Normalises as many pixels of a row as fill whole vectors; returns their number.
template <bool mirrored, bool streaming>
INLINE int64_t normalise_vectors(const uint8_t* row, int64_t W, int64_t P, float factor,
                                 float offset, float* y) {
  const __m256 factors = _mm256_set1_ps(factor), offsets = _mm256_set1_ps(offset);
  int64_t x = 0;
  for (; x + 16 <= W; x += 16) {
    const uint8_t* from = row + 3 * (mirrored ? W - 16 - x : x);
    __m128i pixels[3];
    for (int i = 0; i < 3; ++i)
      pixels[i] = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from + 16 * i));
    put<streaming>(one_colour<mirrored, 0>(pixels), factors, offsets, y + x);
    put<streaming>(one_colour<mirrored, 1>(pixels), factors, offsets, y + P + x);
    put<streaming>(one_colour<mirrored, 2>(pixels), factors, offsets, y + 2 * P + x);
  }
  return x;
}

INLINE void wait_for_stores() { _mm_sfence(); }

#else

template <bool mirrored, bool streaming>
INLINE int64_t normalise_vectors(const uint8_t*, int64_t, int64_t, float, float, float*) {
  return 0;
}

INLINE void wait_for_stores() {}

#endif

template <bool mirrored, bool streaming>
void normalise_image(const Images& in, const uint8_t* row, float* y) {
  const int64_t W = in.W, P = in.H * in.W;
  for (int64_t line = 0; line < in.H; ++line, row += 3 * W, y += W) {
    int64_t x = normalise_vectors<mirrored, streaming>(row, W, P, in.factor, in.offset, y);
    for (; x < W; ++x)
      for (int colour = 0; colour < 3; ++colour)
        y[colour * P + x] = row[3 * (mirrored ? W - 1 - x : x) + colour] * in.factor + in.offset;
  }
}

template <bool streaming>
void normalise_all(const Images& in, float* y) {
  const int64_t size = 3 * in.H * in.W;
  for (int64_t n = 0; n < in.N; ++n, y += size) {
    const uint8_t* image = in.pixels + in.rows[n] * size;
    if (in.mirror[n])
      normalise_image<true, streaming>(in, image, y);
    else
      normalise_image<false, streaming>(in, image, y);
  }
  if (streaming) wait_for_stores();
}

inline void normalise(const Images& in, float* y) {
  const bool aligned = reinterpret_cast<uintptr_t>(y) % 32 == 0 && in.W % 8 == 0;
  if (aligned)
    normalise_all<true>(in, y);
  else
    normalise_all<false>(in, y);
}
