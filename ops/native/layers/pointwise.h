// SPDX-License-Identifier: Apache-2.0
// 1x1 convolution of (N, C, P) arrays as matrix products, without a change of layout.
//
// Included by level.cc, into the namespace of a level.
#pragma once

// Computes c[i][0..width) = sum_k a[i * ai + k * ak] * b[k][0..width) for any width. Rows of b and
// c are `stride` apart; `buffer` has space for a panel of K rows and a panel of results.
template <typename T>
INLINE void product_of_width(int64_t rows, int64_t K, int64_t width, const T* a, int64_t ai,
                             int64_t ak, const T* b, int64_t stride, T* c, T* buffer) {
  int64_t p = 0;
  for (; p + kPanelColumns<T> <= width; p += kPanelColumns<T>)
    product<T>(rows, K, a, ai, ak, b + p, stride, c + p, stride, false);
  if (p == width) return;
  T *panel = buffer, *result = buffer + K * kPanelColumns<T>;
  for (int64_t k = 0; k < K; ++k)
    for (int64_t i = 0; i < kPanelColumns<T>; ++i)
      panel[k * kPanelColumns<T> + i] = p + i < width ? b[k * stride + p + i] : T(0);
  product<T>(rows, K, a, ai, ak, panel, kPanelColumns<T>, result, kPanelColumns<T>, false);
  for (int64_t i = 0; i < rows; ++i)
    __builtin_memcpy(c + i * stride + p, result + i * kPanelColumns<T>, (width - p) * sizeof(T));
}

constexpr int64_t kBlockPixels =
    256;  // pixels of a block, whose transposed panel fits into the cache

template <typename T>
int64_t pointwise_bytes(const Pointwise& size, int threads) {
  const int64_t most = size.inputs > size.outputs ? size.inputs : size.outputs;
  const int64_t tails = 2 * most * kPanelColumns<T>;
  const int64_t weights = round_up(size.inputs, kPanelColumns<T>) * size.outputs;
  const int64_t each = tails + weights + kBlockPixels * kPanelColumns<T>;
  return each * threads * int64_t(sizeof(T)) + 64 * 3 * int64_t(threads);
}

// Each thread convolves some of the images.
template <typename T>
void pointwise_forward(const Pointwise& size, int threads, char* workspace, const T* x,
                       const T* weight, T* y) {
  Arena arena{workspace};
  const int64_t most = size.inputs > size.outputs ? size.inputs : size.outputs;
  T* tails[kMaxThreads];
  for (int k = 0; k < threads; ++k) tails[k] = arena.allocate<T>(2 * most * kPanelColumns<T>);
#pragma omp parallel for num_threads(threads) schedule(static)
  for (int k = 0; k < threads; ++k) {
    const Range images = share(size.N, k, threads);
    for (int64_t n = images.begin; n < images.end; ++n)
      product_of_width<T>(size.outputs, size.inputs, size.P, weight, size.inputs, 1,
                          x + n * size.inputs * size.P, size.P, y + n * size.outputs * size.P,
                          tails[k]);
  }
}

// Writes panel[p][i] = x[i][p] for at most one panel of rows; missing rows become zero.
template <typename T>
INLINE void transpose(int64_t rows, int64_t width, const T* x, int64_t stride, T* panel) {
  if (rows < kPanelColumns<T>) __builtin_memset(panel, 0, width * kPanelColumns<T> * sizeof(T));
  for (int64_t i = 0; i < rows; ++i)
    for (int64_t p = 0; p < width; ++p) panel[p * kPanelColumns<T> + i] = x[i * stride + p];
}

template <typename T>
void pointwise_backward(const Pointwise& size, int threads, char* workspace, const T* x,
                        const T* weight, const T* dy, T* dx, T* dweight) {
  Arena arena{workspace};
  const int64_t most = size.inputs > size.outputs ? size.inputs : size.outputs;
  const int64_t padded = round_up(size.inputs, kPanelColumns<T>);
  T *tails[kMaxThreads], *parts[kMaxThreads], *panels[kMaxThreads];
  for (int k = 0; k < threads; ++k) {
    tails[k] = arena.allocate<T>(2 * most * kPanelColumns<T>);
    parts[k] = arena.allocate<T>(padded * size.outputs);
    panels[k] = arena.allocate<T>(kBlockPixels * kPanelColumns<T>);
  }
#pragma omp parallel for num_threads(threads) schedule(static)
  for (int k = 0; k < threads; ++k) {
    const Range images = share(size.N, k, threads);
    for (int64_t n = images.begin; n < images.end; ++n) {
      const T* from = x + n * size.inputs * size.P;
      const T* gradient = dy + n * size.outputs * size.P;
      product_of_width<T>(size.inputs, size.outputs, size.P, weight, 1, size.inputs, gradient,
                          size.P, dx + n * size.inputs * size.P, tails[k]);
      for (int64_t p = 0; p < size.P; p += kBlockPixels) {
        const int64_t width = size.P - p < kBlockPixels ? size.P - p : kBlockPixels;
        for (int64_t j = 0; j < size.inputs; j += kPanelColumns<T>) {
          const int64_t rows =
              size.inputs - j < kPanelColumns<T> ? size.inputs - j : kPanelColumns<T>;
          transpose<T>(rows, width, from + j * size.P + p, size.P, panels[k]);
          product<T>(size.outputs, width, gradient + p, size.P, 1, panels[k], kPanelColumns<T>,
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
