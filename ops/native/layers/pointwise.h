// SPDX-License-Identifier: Apache-2.0
// 1x1 convolution of (N, C, P) arrays as matrix products on the planes as they lie.
//
// Included by level.cc, into the namespace of a level.
#pragma once

// c[i][0..width) = sum over k of a[i * ai + k * ak] * b[k][0..width): any width, b and c with
// rows `stride` apart; `memory` holds a panel of K rows and one of the results.
template <typename T>
INLINE void product_of_width(int64_t rows, int64_t K, int64_t width, const T* a, int64_t ai,
                             int64_t ak, const T* b, int64_t stride, T* c, T* memory) {
  int64_t p = 0;
  for (; p + kPanel<T> <= width; p += kPanel<T>)
    product<T>(rows, K, a, ai, ak, b + p, stride, c + p, stride, false);
  if (p == width) return;
  T *panel = memory, *result = memory + K * kPanel<T>;
  for (int64_t k = 0; k < K; ++k)
    for (int64_t i = 0; i < kPanel<T>; ++i)
      panel[k * kPanel<T> + i] = p + i < width ? b[k * stride + p + i] : T(0);
  product<T>(rows, K, a, ai, ak, panel, kPanel<T>, result, kPanel<T>, false);
  for (int64_t i = 0; i < rows; ++i)
    __builtin_memcpy(c + i * stride + p, result + i * kPanel<T>, (width - p) * sizeof(T));
}

constexpr int64_t kPixels = 256;  // pixels of a block: a transposed panel of them stays in the cache

template <typename T>
int64_t pointwise_bytes(const Pointwise& size, int threads) {
  const int64_t most = size.inputs > size.outputs ? size.inputs : size.outputs;
  const int64_t tails = 2 * most * kPanel<T>;
  const int64_t weights = round_up(size.inputs, kPanel<T>) * size.outputs;
  const int64_t each = tails + weights + kPixels * kPanel<T>;
  return each * threads * int64_t(sizeof(T)) + 64 * 3 * int64_t(threads);
}

// Images are shared among the threads, and the pixels of an image where there are few images.
template <typename T>
void pointwise_forward(const Pointwise& size, int threads, char* working, const T* x,
                       const T* weight, T* y) {
  Memory memory{working};
  const int64_t most = size.inputs > size.outputs ? size.inputs : size.outputs;
  T* tails[kMostThreads];
  for (int k = 0; k < threads; ++k) tails[k] = memory.take<T>(2 * most * kPanel<T>);
#pragma omp parallel for num_threads(threads) schedule(static)
  for (int k = 0; k < threads; ++k) {
    const Range images = share(size.N, k, threads);
    for (int64_t n = images.begin; n < images.end; ++n)
      product_of_width<T>(size.outputs, size.inputs, size.P, weight, size.inputs, 1,
                          x + n * size.inputs * size.P, size.P, y + n * size.outputs * size.P,
                          tails[k]);
  }
}

// panel[p][i] = x[i][p] for up to one panel of rows, zero behind the last one.
template <typename T>
INLINE void transpose(int64_t rows, int64_t width, const T* x, int64_t stride, T* panel) {
  if (rows < kPanel<T>) __builtin_memset(panel, 0, width * kPanel<T> * sizeof(T));
  for (int64_t i = 0; i < rows; ++i)
    for (int64_t p = 0; p < width; ++p) panel[p * kPanel<T> + i] = x[i * stride + p];
}

template <typename T>
void pointwise_backward(const Pointwise& size, int threads, char* working, const T* x,
                        const T* weight, const T* dy, T* dx, T* dweight) {
  Memory memory{working};
  const int64_t most = size.inputs > size.outputs ? size.inputs : size.outputs;
  const int64_t padded = round_up(size.inputs, kPanel<T>);
  T *tails[kMostThreads], *parts[kMostThreads], *panels[kMostThreads];
  for (int k = 0; k < threads; ++k) {
    tails[k] = memory.take<T>(2 * most * kPanel<T>);
    parts[k] = memory.take<T>(padded * size.outputs);
    panels[k] = memory.take<T>(kPixels * kPanel<T>);
  }
#pragma omp parallel for num_threads(threads) schedule(static)
  for (int k = 0; k < threads; ++k) {
    const Range images = share(size.N, k, threads);
    for (int64_t n = images.begin; n < images.end; ++n) {
      const T* from = x + n * size.inputs * size.P;
      const T* gradient = dy + n * size.outputs * size.P;
      product_of_width<T>(size.inputs, size.outputs, size.P, weight, 1, size.inputs, gradient,
                          size.P, dx + n * size.inputs * size.P, tails[k]);
      for (int64_t p = 0; p < size.P; p += kPixels) {
        const int64_t width = size.P - p < kPixels ? size.P - p : kPixels;
        for (int64_t j = 0; j < size.inputs; j += kPanel<T>) {
          const int64_t rows = size.inputs - j < kPanel<T> ? size.inputs - j : kPanel<T>;
          transpose<T>(rows, width, from + j * size.P + p, size.P, panels[k]);
          product<T>(size.outputs, width, gradient + p, size.P, 1, panels[k], kPanel<T>,
                     parts[k] + j, padded, true);
        }
      }
    }
  }
#pragma omp parallel for num_threads(threads) schedule(static)
  for (int64_t i = 0; i < size.outputs; ++i)
    for (int64_t j = 0; j < size.inputs; ++j) {
      T sum = 0;
      for (int k = 0; k < threads; ++k) sum += parts[k][i * padded + j];
      dweight[i * size.inputs + j] = sum;
    }
}
