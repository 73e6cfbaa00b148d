// SPDX-License-Identifier: Apache-2.0
// Vector types of one instruction level, the exponential function and a matrix product.
//
// level.cc includes this file once per level, in a separate namespace. Do not use templates or
// inline functions of the standard library here or in the other headers of level.cc: the linker
// keeps one copy for all levels, and that copy may contain instructions that the CPU does not
// support.
#pragma once

#define INLINE inline __attribute__((always_inline))

#if defined(__AVX512F__)
constexpr int kVectorBytes = 64, kTileRows = 12;
#elif defined(__AVX2__)
constexpr int kVectorBytes = 32, kTileRows = 6;
#else
constexpr int kVectorBytes = 16, kTileRows = 4;
#endif
constexpr int kTileVectors = 2;  // vectors per row of a tile of the matrix product

template <typename T>
struct Lanes;
template <>
struct Lanes<float> {
  typedef int32_t Integer;
};
template <>
struct Lanes<double> {
  typedef int64_t Integer;
};

template <typename T>
constexpr int kLanes = kVectorBytes / sizeof(T);
template <typename T>
constexpr int kPanelColumns = kTileVectors * kLanes<T>;  // columns of a panel

template <typename T>
using Vector __attribute__((vector_size(kVectorBytes), aligned(sizeof(T)), may_alias)) = T;
template <typename T>
using Bits __attribute__((vector_size(kVectorBytes))) = typename Lanes<T>::Integer;

template <typename T>
INLINE Vector<T>& at(T* p) {
  return *reinterpret_cast<Vector<T>*>(p);
}
template <typename T>
INLINE const Vector<T>& at(const T* p) {
  return *reinterpret_cast<const Vector<T>*>(p);
}
template <typename T>
INLINE Vector<T> larger(Vector<T> a, Vector<T> b) {
  return a > b ? a : b;
}

template <typename T>
T sum_of(Vector<T> v) {
  T sum = 0;
  for (int i = 0; i < kLanes<T>; ++i) sum += v[i];
  return sum;
}

// Returns whether a comparison holds in any lane.
template <typename T>
INLINE bool any(Bits<T> holds) {
  typename Lanes<T>::Integer found = 0;
  for (int i = 0; i < kLanes<T>; ++i) found |= holds[i];
  return found;
}

// Returns exp(x) for x <= 0 as 2^n e^r with |r| <= ln 2 / 2; 0 below the smallest normal number.
INLINE Vector<float> exponential(Vector<float> x) {
  const Vector<float> zero{};
  const Vector<float> low = zero - 87.0f;
  Vector<float> y = x > low ? x : low;
  // Adding 1.5 * 2^23 rounds to the nearest integer and puts it in the low bits.
  Vector<float> shifted = y * 1.44269504088896341f + 12582912.0f;
  Bits<float> power = (Bits<float>)shifted << 23;
  Vector<float> n = shifted - 12582912.0f;
  Vector<float> r = y - n * 0.693359375f;
  r = r + n * 2.12194440e-4f;
  Vector<float> p = r * 1.9875691500e-4f + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * (r * r) + r + 1.0f;
  Vector<float> e = (Vector<float>)((Bits<float>)p + power);
  return x > low ? e : zero;
}
INLINE Vector<double> exponential(Vector<double> x) {  // double serves tests: exact, slow
  for (int i = 0; i < kLanes<double>; ++i) x[i] = exp(x[i]);
  return x;
}

// Computes c[i][j] (+)= sum_k a[i * ai + k * ak] * b[k][j] for i < M and the columns of one panel.
template <typename T, int M>
INLINE void tile(int64_t K, const T* a, int64_t ai, int64_t ak, const T* b, int64_t bk, T* c,
                 int64_t ci, bool add) {
  Vector<T> sum[M][kTileVectors];
#pragma GCC unroll 16
  for (int i = 0; i < M; ++i)
#pragma GCC unroll 4
    for (int j = 0; j < kTileVectors; ++j)
      sum[i][j] = add ? at(c + i * ci + j * kLanes<T>) : Vector<T>{};
  for (int64_t k = 0; k < K; ++k) {
    Vector<T> right[kTileVectors];
#pragma GCC unroll 4
    for (int j = 0; j < kTileVectors; ++j) right[j] = at(b + k * bk + j * kLanes<T>);
#pragma GCC unroll 16
    for (int i = 0; i < M; ++i) {
      const Vector<T> left = a[i * ai + k * ak] - Vector<T>{};
#pragma GCC unroll 4
      for (int j = 0; j < kTileVectors; ++j) sum[i][j] += left * right[j];
    }
  }
#pragma GCC unroll 16
  for (int i = 0; i < M; ++i)
#pragma GCC unroll 4
    for (int j = 0; j < kTileVectors; ++j) at(c + i * ci + j * kLanes<T>) = sum[i][j];
}

// Computes the last m < kTileRows rows.
template <typename T, int M>
INLINE void last_rows(int64_t m, int64_t K, const T* a, int64_t ai, int64_t ak, const T* b,
                      int64_t bk, T* c, int64_t ci, bool add) {
  if (m == M)
    tile<T, M>(K, a, ai, ak, b, bk, c, ci, add);
  else if constexpr (M > 1)
    last_rows<T, M - 1>(m, K, a, ai, ak, b, bk, c, ci, add);
}

// Computes the same product as `tile` for any number of rows.
template <typename T>
void product(int64_t rows, int64_t K, const T* a, int64_t ai, int64_t ak, const T* b, int64_t bk,
             T* c, int64_t ci, bool add) {
  int64_t i = 0;
  for (; i + kTileRows <= rows; i += kTileRows)
    tile<T, kTileRows>(K, a + i * ai, ai, ak, b, bk, c + i * ci, ci, add);
  if (i < rows)
    last_rows<T, kTileRows - 1>(rows - i, K, a + i * ai, ai, ak, b, bk, c + i * ci, ci, add);
}
