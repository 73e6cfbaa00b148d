// SPDX-License-Identifier: Apache-2.0
// Fused depthwise 3x3 convolution (padding 1), batch normalisation and PReLU on (N, C, H, W).
//
// Each thread runs all three steps on one channel of all images while it is in the cache. No array
// holds the convolution's output; backward recomputes it from x.
//
// Included by level.cc, into the namespace of a level.
#pragma once

// Layout of a plane with a border of zeros. Rows are `stride` values apart; vectors may read beyond
// a row.
template <typename T>
struct Padded {
  int64_t H, W, stride;
  Padded(int64_t h, int64_t w) : H(h), W(w), stride(round_up(w + 2, kLanes<T>) + kLanes<T>) {}
  int64_t count() const { return (H + 2) * stride + kLanes<T>; }
};

// Copies a plane of h x w values into a padded plane, whose border is zero already, with a spacing
// of `step` rows and columns.
template <typename T>
INLINE void pad(const Padded<T>& size, const T* plane, int64_t h, int64_t w, int64_t step, T* out) {
  for (int64_t i = 0; i < h; ++i) {
    T* row = out + (i * step + 1) * size.stride + 1;
    if (step == 1)
      __builtin_memcpy(row, plane + i * w, w * sizeof(T));
    else
      for (int64_t j = 0; j < w; ++j) row[j * step] = plane[i * w + j];
  }
}

// Computes rows 0, step, 2 step, ... of the 3x3 correlation with nine weights; `out` has rows of W
// values.
template <typename T>
INLINE void correlate(const Padded<T>& size, const T* padded, const T* nine, int64_t step, T* out) {
  Vector<T> k[9];
#pragma GCC unroll 9
  for (int i = 0; i < 9; ++i) k[i] = nine[i] - Vector<T>{};
  const int64_t rows = (size.H + step - 1) / step;
  for (int64_t i = 0; i < rows; ++i) {
    const T* from = padded + i * step * size.stride;
    T* to = out + i * size.W;
    for (int64_t j = 0; j < size.W; j += kLanes<T>) {
      Vector<T> sum{};
#pragma GCC unroll 3
      for (int r = 0; r < 3; ++r)
#pragma GCC unroll 3
        for (int c = 0; c < 3; ++c) sum += k[3 * r + c] * at(from + r * size.stride + j + c);
      // A vector may overwrite values of the next rows, which are computed later.
      if (i * size.W + j + kLanes<T> <= rows * size.W)
        at(to + j) = sum;
      else
        for (int l = 0; l < kLanes<T> && j + l < size.W; ++l) to[j + l] = sum[l];
    }
  }
}

// Computes nine[r][c] += sum_ij d[i][j] padded[i + r][j + c] over a plane; d is padded too.
template <typename T>
INLINE void correlate_planes(const Padded<T>& size, const T* padded, const T* d, Vector<T>* nine) {
  for (int64_t i = 0; i < size.H; ++i) {
    const T *from = padded + i * size.stride, *gradient = d + (i + 1) * size.stride + 1;
    for (int64_t j = 0; j < size.W; j += kLanes<T>) {
      const Vector<T> g = at(gradient + j);  // zeros beyond the row
#pragma GCC unroll 3
      for (int r = 0; r < 3; ++r)
#pragma GCC unroll 3
        for (int c = 0; c < 3; ++c) nine[3 * r + c] += g * at(from + r * size.stride + j + c);
    }
  }
}

template <typename T>
INLINE Planes outputs_of(const Depthwise& size) {
  const int64_t h = (size.H + size.step - 1) / size.step, w = (size.W + size.step - 1) / size.step;
  return {size.N, 1, h * w};
}

template <typename T>
int64_t depthwise_bytes(const Depthwise& size, int threads) {
  const Padded<T> padded(size.H, size.W);
  const int64_t planes = outputs_of<T>(size).P * size.N;
  const int64_t each = 2 * padded.count() + size.H * size.W + kLanes<T> + 2 * planes;
  return each * threads * int64_t(sizeof(T)) + 64 * 8 * int64_t(threads);
}

// Convolves channel c of all images to z (N, h, w).
template <typename T>
INLINE void convolve_channel(const Depthwise& size, const Padded<T>& padded, const T* x, int64_t c,
                             const T* weight, T* plane, T* whole, T* z) {
  const int64_t P = outputs_of<T>(size).P;
  const int64_t w = (size.W + size.step - 1) / size.step, h = P / w;
  for (int64_t n = 0; n < size.N; ++n) {
    pad<T>(padded, x + (n * size.C + c) * size.H * size.W, size.H, size.W, 1, plane);
    if (size.step == 1) {
      correlate<T>(padded, plane, weight + 9 * c, 1, z + n * P);
    } else {
      correlate<T>(padded, plane, weight + 9 * c, size.step, whole);
      for (int64_t i = 0; i < h; ++i)
        for (int64_t j = 0; j < w; ++j) z[n * P + i * w + j] = whole[i * size.W + j * size.step];
    }
  }
}

template <typename T>
void depthwise_forward(const Depthwise& size, int threads, char* workspace, const BatchNorm<T>& in,
                       const T* weight, T momentum, T* y, T* mean, T* inverse, T* running_mean,
                       T* running_variance) {
  Arena arena{workspace};
  const Padded<T> padded(size.H, size.W);
  const Planes one = outputs_of<T>(size);
  T *planes[kMaxThreads], *wholes[kMaxThreads], *zs[kMaxThreads];
  for (int k = 0; k < threads; ++k) {
    planes[k] = arena.allocate<T>(padded.count());
    wholes[k] = arena.allocate<T>(size.H * size.W + kLanes<T>);
    zs[k] = arena.allocate<T>(one.N * one.P);
  }
#pragma omp parallel for num_threads(threads) schedule(static)
  for (int k = 0; k < threads; ++k) {
    const Range channels = share(size.C, k, threads);
    for (int64_t c = channels.begin; c < channels.end; ++c) {
      T* z = zs[k];
      convolve_channel<T>(size, padded, in.x, c, weight, planes[k], wholes[k], z);
      statistics<T>(one, z, 0, in.epsilon, momentum, mean + c, inverse + c, running_mean + c,
                    running_variance + c);
      const T factor = in.gamma[c] * inverse[c], shift = in.beta[c] - mean[c] * factor;
      for (int64_t n = 0; n < size.N; ++n)
        normalise_plane<T>(one.P, z + n * one.P, factor, shift, in.slope + c,
                           y + (n * size.C + c) * one.P);
    }
  }
}

template <typename T>
void depthwise_backward(const Depthwise& size, int threads, char* workspace, const BatchNorm<T>& in,
                        const T* weight, const T* mean, const T* inverse, const T* dy, T* dx,
                        T* dweight, T* dgamma, T* dbeta, T* dslope) {
  Arena arena{workspace};
  const Padded<T> padded(size.H, size.W);
  const Planes one = outputs_of<T>(size);
  const int64_t w = (size.W + size.step - 1) / size.step, h = one.P / w;
  T *planes[kMaxThreads], *wholes[kMaxThreads], *zs[kMaxThreads], *stuffed[kMaxThreads];
  T* dzs[kMaxThreads];
  for (int k = 0; k < threads; ++k) {
    planes[k] = arena.allocate<T>(padded.count());
    stuffed[k] = arena.allocate<T>(padded.count());
    wholes[k] = arena.allocate<T>(size.H * size.W + kLanes<T>);
    zs[k] = arena.allocate<T>(one.N * one.P);
    dzs[k] = arena.allocate<T>(one.N * one.P);
  }
#pragma omp parallel for num_threads(threads) schedule(static)
  for (int k = 0; k < threads; ++k) {
    const Range channels = share(size.C, k, threads);
    for (int64_t c = channels.begin; c < channels.end; ++c) {
      T *z = zs[k], *dz = dzs[k];
      convolve_channel<T>(size, padded, in.x, c, weight, planes[k], wholes[k], z);
      norm_backward_channel<T>(size.N, one.P, in.gamma[c], in.beta[c], in.slope + c, mean[c],
                               inverse[c], z, one.P, dy + c * one.P, size.C * one.P, dz, one.P,
                               dgamma + c, dbeta + c, dslope + c);
      T flipped[9];
      for (int i = 0; i < 9; ++i) flipped[i] = weight[9 * c + 8 - i];
      Vector<T> nine[9] = {};
      for (int64_t n = 0; n < size.N; ++n) {
        const int64_t plane = (n * size.C + c) * size.H * size.W;
        pad<T>(padded, in.x + plane, size.H, size.W, 1, planes[k]);
        pad<T>(padded, dz + n * one.P, h, w, size.step, stuffed[k]);
        correlate_planes<T>(padded, planes[k], stuffed[k], nine);
        correlate<T>(padded, stuffed[k], flipped, 1, dx + plane);
      }
      for (int i = 0; i < 9; ++i) dweight[9 * c + i] = sum_of<T>(nine[i]);
    }
  }
}
