// SPDX-License-Identifier: Apache-2.0
// Layers of a network in inference: batch normalisation with running statistics, optionally followed
// by PReLU, alone or after a 1x1 or a depthwise 3x3 convolution.
//
// Each step processes a part of the convolution's output while it is in the cache.
//
// Included by level.cc, into the namespace of a level.
#pragma once

// Factor and summand that replace the normalisation of channel c.
template <typename T>
struct Affine {
  T factor, shift;
  INLINE Affine(const FrozenNorm<T>& norm, int64_t c)
      : factor(T(double(norm.gamma[c]) /
                 __builtin_sqrt(double(norm.variance[c]) + double(norm.epsilon)))),
        shift(norm.beta[c] - norm.mean[c] * factor) {}
};

template <typename T>
INLINE const T* slope_of(const FrozenNorm<T>& norm, int64_t c) {
  return norm.slope ? norm.slope + c : nullptr;
}

template <typename T>
void frozen_norm(const Planes& size, int threads, const T* x, const FrozenNorm<T>& norm, T* y) {
#pragma omp parallel for num_threads(threads) schedule(static)
  for (int64_t plane = 0; plane < size.N * size.C; ++plane) {
    const int64_t c = plane % size.C;
    const Affine<T> affine(norm, c);
    normalise_plane<T>(size.P, x + plane * size.P, affine.factor, affine.shift,
                       slope_of(norm, c), y + plane * size.P);
  }
}

constexpr int64_t kFrozenPixels = 128;  // pixels of a block; its outputs fit into the L2 cache

template <typename T>
int64_t frozen_pointwise_bytes(const Pointwise& size, int threads) {
  const int64_t most = size.inputs > size.outputs ? size.inputs : size.outputs;
  return (2 * most * kPanelColumns<T> * int64_t(sizeof(T)) + 64) * threads;
}

// Each thread computes blocks of pixels, so that a single image also uses all threads.
template <typename T>
void frozen_pointwise(const Pointwise& size, int threads, char* workspace, const T* x,
                      const T* weight, const FrozenNorm<T>& norm, T* y) {
  Arena arena{workspace};
  const int64_t most = size.inputs > size.outputs ? size.inputs : size.outputs;
  T* tails[kMaxThreads];
  for (int k = 0; k < threads; ++k) tails[k] = arena.allocate<T>(2 * most * kPanelColumns<T>);
  const int64_t blocks = (size.P + kFrozenPixels - 1) / kFrozenPixels;
#pragma omp parallel for num_threads(threads) schedule(static)
  for (int k = 0; k < threads; ++k) {
    const Range range = share(size.N * blocks, k, threads);
    for (int64_t i = range.begin; i < range.end; ++i) {
      const int64_t n = i / blocks, p = i % blocks * kFrozenPixels;
      const int64_t width = size.P - p < kFrozenPixels ? size.P - p : kFrozenPixels;
      T* to = y + n * size.outputs * size.P + p;
      product_of_width<T>(size.outputs, size.inputs, width, weight, size.inputs, 1,
                          x + n * size.inputs * size.P + p, size.P, to, tails[k]);
      for (int64_t c = 0; c < size.outputs; ++c) {
        const Affine<T> affine(norm, c);
        normalise_plane<T>(width, to + c * size.P, affine.factor, affine.shift, slope_of(norm, c),
                           to + c * size.P);
      }
    }
  }
}

template <typename T>
int64_t frozen_depthwise_bytes(const Depthwise& size, int threads) {
  const Padded<T> padded(size.H, size.W);
  const int64_t each = padded.count() + 2 * (size.H * size.W + kLanes<T>);
  return (each * int64_t(sizeof(T)) + 64 * 3) * threads;
}

template <typename T>
void frozen_depthwise(const Depthwise& size, int threads, char* workspace, const T* x,
                      const T* weight, const FrozenNorm<T>& norm, T* y) {
  Arena arena{workspace};
  const Padded<T> padded(size.H, size.W);
  const Depthwise one{1, size.C, size.H, size.W, size.step};
  const int64_t P = outputs_of<T>(size).P;
  T *planes[kMaxThreads], *wholes[kMaxThreads], *zs[kMaxThreads];
  for (int k = 0; k < threads; ++k) {
    planes[k] = arena.allocate<T>(padded.count());
    wholes[k] = arena.allocate<T>(size.H * size.W + kLanes<T>);
    zs[k] = arena.allocate<T>(P + kLanes<T>);
  }
#pragma omp parallel for num_threads(threads) schedule(static)
  for (int k = 0; k < threads; ++k) {
    const Range range = share(size.N * size.C, k, threads);
    for (int64_t plane = range.begin; plane < range.end; ++plane) {
      const int64_t n = plane / size.C, c = plane % size.C;
      convolve_channel<T>(one, padded, x + n * size.C * size.H * size.W, c, weight, planes[k],
                          wholes[k], zs[k]);
      const Affine<T> affine(norm, c);
      normalise_plane<T>(P, zs[k], affine.factor, affine.shift, slope_of(norm, c), y + plane * P);
    }
  }
}
