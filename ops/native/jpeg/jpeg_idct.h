// SPDX-License-Identifier: Apache-2.0
// Inverse DCT of 8x8 blocks (Loeffler, Ligtenberg and Moschytz, "Practical fast 1-D DCT algorithms
// with 11 multiplications", ICASSP 1989) in fixed point with 13 fraction bits.  It transforms
// columns first and keeps 2 fraction bits for the rows.  libjpeg calls this method JDCT_ISLOW; the
// samples equal those of libjpeg-turbo's SIMD code bit by bit.
//
// Included by level.cc, into the namespace of a level.
#pragma once

#if defined(__SSE2__)

// A vector holds one row of kVectorBlocks blocks; each row has 8 values of 16 bits.
#if defined(__AVX512BW__)
typedef __m512i Lanes16;
#define OF_WIDTH(name) _mm512_##name
#elif defined(__AVX2__)
typedef __m256i Lanes16;
#define OF_WIDTH(name) _mm256_##name
#else
typedef __m128i Lanes16;
#define OF_WIDTH(name) _mm_##name
#endif
constexpr int kVectorBlocks = sizeof(Lanes16) / 16;

INLINE Lanes16 add16(Lanes16 a, Lanes16 b) { return OF_WIDTH(add_epi16)(a, b); }
INLINE Lanes16 sub16(Lanes16 a, Lanes16 b) { return OF_WIDTH(sub_epi16)(a, b); }
INLINE Lanes16 add32(Lanes16 a, Lanes16 b) { return OF_WIDTH(add_epi32)(a, b); }
INLINE Lanes16 sub32(Lanes16 a, Lanes16 b) { return OF_WIDTH(sub_epi32)(a, b); }

INLINE bool same(Lanes16 a, Lanes16 b) {
#if defined(__AVX512BW__)
  return _mm512_cmpneq_epi16_mask(a, b) == 0;
#elif defined(__AVX2__)
  return _mm256_movemask_epi8(_mm256_cmpeq_epi16(a, b)) == -1;
#else
  return _mm_movemask_epi8(_mm_cmpeq_epi16(a, b)) == 0xFFFF;
#endif
}

// 32-bit values of the lower and the upper four columns of each block.
struct Wide {
  Lanes16 low, high;
};
INLINE Wide operator+(Wide a, Wide b) { return {add32(a.low, b.low), add32(a.high, b.high)}; }
INLINE Wide operator-(Wide a, Wide b) { return {sub32(a.low, b.low), sub32(a.high, b.high)}; }

struct Pair {
  Lanes16 low, high;  // interleaved values of a and b
};
INLINE Pair pair(Lanes16 a, Lanes16 b) {
  return {OF_WIDTH(unpacklo_epi16)(a, b), OF_WIDTH(unpackhi_epi16)(a, b)};
}
// Returns a x + b y.
template <int x, int y>
INLINE Wide times(Pair of) {
  const Lanes16 factors = OF_WIDTH(set1_epi32)(int(uint32_t(y) << 16 | (uint32_t(x) & 0xFFFF)));
  return {OF_WIDTH(madd_epi16)(of.low, factors), OF_WIDTH(madd_epi16)(of.high, factors)};
}
// Returns a << 13.
INLINE Wide lifted(Lanes16 a) {
  const Lanes16 zero = sub16(a, a);
  return {OF_WIDTH(srai_epi32)(OF_WIDTH(unpacklo_epi16)(zero, a), 3),
          OF_WIDTH(srai_epi32)(OF_WIDTH(unpackhi_epi16)(zero, a), 3)};
}
template <int bits>
INLINE Lanes16 rounded(Wide a) {
  const Lanes16 half = OF_WIDTH(set1_epi32)(1 << (bits - 1));
  return OF_WIDTH(packs_epi32)(OF_WIDTH(srai_epi32)(add32(a.low, half), bits),
                               OF_WIDTH(srai_epi32)(add32(a.high, half), bits));
}

// Transforms one dimension: rows[0] to rows[7], for all columns.
template <int bits>
INLINE void idct_once(Lanes16 (&rows)[8]) {
  constexpr int k0_298 = 2446, k0_390 = 3196, k0_541 = 4433, k0_765 = 6270, k0_899 = 7373,
                k1_175 = 9633, k1_501 = 12299, k1_847 = 15137, k1_961 = 16069, k2_053 = 16819,
                k2_562 = 20995, k3_072 = 25172;
  const Pair even = pair(rows[2], rows[6]);
  const Wide tmp3 = times<k0_541 + k0_765, k0_541>(even);
  const Wide tmp2 = times<k0_541, k0_541 - k1_847>(even);
  const Wide tmp0 = lifted(add16(rows[0], rows[4])), tmp1 = lifted(sub16(rows[0], rows[4]));
  const Wide tmp10 = tmp0 + tmp3, tmp13 = tmp0 - tmp3, tmp11 = tmp1 + tmp2, tmp12 = tmp1 - tmp2;

  const Pair sums = pair(add16(rows[7], rows[3]), add16(rows[5], rows[1]));
  const Wide z3 = times<k1_175 - k1_961, k1_175>(sums), z4 = times<k1_175, k1_175 - k0_390>(sums);
  const Pair outer = pair(rows[7], rows[1]), inner = pair(rows[5], rows[3]);
  const Wide odd0 = times<k0_298 - k0_899, -k0_899>(outer) + z3;
  const Wide odd3 = times<-k0_899, k1_501 - k0_899>(outer) + z4;
  const Wide odd1 = times<k2_053 - k2_562, -k2_562>(inner) + z4;
  const Wide odd2 = times<-k2_562, k3_072 - k2_562>(inner) + z3;

  rows[0] = rounded<bits>(tmp10 + odd3);
  rows[7] = rounded<bits>(tmp10 - odd3);
  rows[1] = rounded<bits>(tmp11 + odd2);
  rows[6] = rounded<bits>(tmp11 - odd2);
  rows[2] = rounded<bits>(tmp12 + odd1);
  rows[5] = rounded<bits>(tmp12 - odd1);
  rows[3] = rounded<bits>(tmp13 + odd0);
  rows[4] = rounded<bits>(tmp13 - odd0);
}

// Transposes each block.
INLINE void transpose(Lanes16 (&rows)[8]) {
  Lanes16 a[8], b[8];
  for (int i = 0; i < 4; ++i) {
    a[2 * i] = OF_WIDTH(unpacklo_epi16)(rows[2 * i], rows[2 * i + 1]);
    a[2 * i + 1] = OF_WIDTH(unpackhi_epi16)(rows[2 * i], rows[2 * i + 1]);
  }
  for (int i = 0; i < 2; ++i) {
    const Lanes16* from = a + 4 * i;
    b[4 * i] = OF_WIDTH(unpacklo_epi32)(from[0], from[2]);
    b[4 * i + 1] = OF_WIDTH(unpackhi_epi32)(from[0], from[2]);
    b[4 * i + 2] = OF_WIDTH(unpacklo_epi32)(from[1], from[3]);
    b[4 * i + 3] = OF_WIDTH(unpackhi_epi32)(from[1], from[3]);
  }
  for (int i = 0; i < 4; ++i) {
    rows[2 * i] = OF_WIDTH(unpacklo_epi64)(b[i], b[i + 4]);
    rows[2 * i + 1] = OF_WIDTH(unpackhi_epi64)(b[i], b[i + 4]);
  }
}

// Loads row `row` of kVectorBlocks consecutive blocks.
INLINE Lanes16 load_row(const int16_t* block, int row) {
  const auto at = [&](int i) __attribute__((always_inline)) {
    return _mm_loadu_si128(reinterpret_cast<const __m128i*>(block + i * kBlockValues + 8 * row));
  };
#if defined(__AVX512BW__)
  return _mm512_inserti32x4(
      _mm512_inserti32x4(_mm512_inserti32x4(_mm512_castsi128_si512(at(0)), at(1), 1), at(2), 2),
      at(3), 3);
#elif defined(__AVX2__)
  return _mm256_inserti128_si256(_mm256_castsi128_si256(at(0)), at(1), 1);
#else
  return at(0);
#endif
}

// Returns the 16 bytes of block `i`.
INLINE __m128i of_block(Lanes16 all, int i) {
  alignas(64) __m128i parts[kVectorBlocks];
  __builtin_memcpy(parts, &all, sizeof all);
  return parts[i];
}

// Writes the samples of kVectorBlocks blocks; `place(i)` is the address of the first sample of
// block i. Returns false if a value is eight times as large as that of any image: there
// libjpeg-turbo's scalar and SIMD code differ.
template <typename Place>
INLINE bool idct(const int16_t* blocks, const int16_t* quant, int64_t stride, const Place& place) {
  Lanes16 rows[8];
  for (int i = 0; i < 8; ++i) {
    const __m128i factors = _mm_loadu_si128(reinterpret_cast<const __m128i*>(quant + 8 * i));
#if defined(__AVX512BW__)
    const Lanes16 all = _mm512_broadcast_i32x4(factors);
#elif defined(__AVX2__)
    const Lanes16 all = _mm256_broadcastsi128_si256(factors);
#else
    const Lanes16 all = factors;
#endif
    rows[i] = OF_WIDTH(mullo_epi16)(load_row(blocks, i), all);
  }
  // One libjpeg-turbo variant shifts the first row by two bits if the other rows are zero.
  const Lanes16 shifted = OF_WIDTH(srai_epi16)(OF_WIDTH(slli_epi16)(rows[0], 2), 2);
  const bool fits = same(rows[0], shifted);
  idct_once<11>(rows);
  transpose(rows);
  idct_once<18>(rows);
  transpose(rows);
  const Lanes16 middle = OF_WIDTH(set1_epi8)(-128);
  for (int i = 0; i < 8; i += 2) {
    const Lanes16 two = OF_WIDTH(add_epi8)(OF_WIDTH(packs_epi16)(rows[i], rows[i + 1]), middle);
    for (int k = 0; k < kVectorBlocks; ++k) {
      const __m128i samples = of_block(two, k);
      uint8_t* to = place(k) + i * stride;
      _mm_storel_epi64(reinterpret_cast<__m128i*>(to), samples);
      _mm_storel_epi64(reinterpret_cast<__m128i*>(to + stride), _mm_srli_si128(samples, 8));
    }
  }
  return fits;
}

#endif
