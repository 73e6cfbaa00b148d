// SPDX-License-Identifier: Apache-2.0
// Vectors of the level that this file is compiled for, the exponential, and one matrix product.
//
// Included once for each level (see level.cc), into a namespace of its own. No templates or inline
// functions of the standard library here or in what includes this: the linker would keep one copy
// of them for all levels, and a machine without that level's instructions would stop at it.
#pragma once

#define INLINE inline __attribute__((always_inline))

#if defined(__AVX512F__)
constexpr int kVectorBytes = 64, kRows = 12;
#elif defined(__AVX2__)
constexpr int kVectorBytes = 32, kRows = 6;
#else
constexpr int kVectorBytes = 16, kRows = 4;
#endif
constexpr int kVectors = 2;  // vectors side by side in a tile of the product

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
constexpr int kPanel = kVectors * kLanes<T>;  // columns of a panel

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

// Whether a comparison holds in any lane.
template <typename T>
INLINE bool any(Bits<T> holds) {
  typename Lanes<T>::Integer found = 0;
  for (int i = 0; i < kLanes<T>; ++i) found |= holds[i];
  return found;
}

// exp(x) for x <= 0: 2^n e^r, |r| <= ln 2 / 2; 0 below the smallest normal number.
INLINE Vector<float> exponential(Vector<float> x) {
  const Vector<float> zero{};
  const Vector<float> low = zero - 87.0f;
  Vector<float> y = x > low ? x : low;
  // Adding 1.5 * 2^23 rounds to the nearest whole number, which then stands in the low bits.
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
INLINE Vector<double> exponential(Vector<double> x) {  // double is for tests: exact, not fast
  for (int i = 0; i < kLanes<double>; ++i) x[i] = exp(x[i]);
  return x;
}

// c[i][j] (+)= sum over k of a[i * ai + k * ak] * b[k][j] for i < M and the columns of one panel.
template <typename T, int M>
INLINE void tile(int64_t K, const T* a, int64_t ai, int64_t ak, const T* b, int64_t bk, T* c,
                 int64_t ci, bool add) {
  Vector<T> sum[M][kVectors];
#pragma GCC unroll 16
  for (int i = 0; i < M; ++i)
#pragma GCC unroll 4
    for (int j = 0; j < kVectors; ++j)
      sum[i][j] = add ? at(c + i * ci + j * kLanes<T>) : Vector<T>{};
  for (int64_t k = 0; k < K; ++k) {
    Vector<T> right[kVectors];
#pragma GCC unroll 4
    for (int j = 0; j < kVectors; ++j) right[j] = at(b + k * bk + j * kLanes<T>);
#pragma GCC unroll 16
    for (int i = 0; i < M; ++i) {
      const Vector<T> left = a[i * ai + k * ak] - Vector<T>{};
#pragma GCC unroll 4
      for (int j = 0; j < kVectors; ++j) sum[i][j] += left * right[j];
    }
  }
#pragma GCC unroll 16
  for (int i = 0; i < M; ++i)
#pragma GCC unroll 4
    for (int j = 0; j < kVectors; ++j) at(c + i * ci + j * kLanes<T>) = sum[i][j];
}

template <typename T, int M>
INLINE void rest(int64_t m, int64_t K, const T* a, int64_t ai, int64_t ak, const T* b, int64_t bk,
                 T* c, int64_t ci, bool add) {
  if (m == M)
    tile<T, M>(K, a, ai, ak, b, bk, c, ci, add);
  else if constexpr (M > 1)
    rest<T, M - 1>(m, K, a, ai, ak, b, bk, c, ci, add);
}

// The same for any number of rows.
template <typename T>
void product(int64_t rows, int64_t K, const T* a, int64_t ai, int64_t ak, const T* b, int64_t bk,
             T* c, int64_t ci, bool add) {
  int64_t i = 0;
  for (; i + kRows <= rows; i += kRows)
    tile<T, kRows>(K, a + i * ai, ai, ak, b, bk, c + i * ci, ci, add);
  if (i < rows) rest<T, kRows - 1>(rows - i, K, a + i * ai, ai, ak, b, bk, c + i * ci, ci, add);
}
