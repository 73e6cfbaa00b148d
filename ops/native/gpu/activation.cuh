// SPDX-License-Identifier: Apache-2.0
// Kernels of PReLU, and of batch normalisation optionally followed by PReLU, on (N, C, P) arrays.
//
// Every channel is divided into the same number of parts. Block i processes part i % parts of
// channel i / parts. A sum over a channel takes two kernels: the first writes one partial sum per
// part; in the second, every block adds up the partial sums and uses the result.
#pragma once
#include "reduce.cuh"

namespace face {
namespace gpu {

// Adjacent values that one instruction reads or writes.
template <typename T, int V>
struct alignas(V * sizeof(T)) Pack {
  T values[V];
};

// Division of the channels into parts.
struct Parts {
  Planes size;
  int64_t parts;
};

__device__ inline int64_t channel_of(const Parts& of) { return blockIdx.x / of.parts; }

// Calls f(index) for each pack of V values of this thread; the index counts packs.
template <int V, typename F>
__device__ void over_part(const Parts& of, F f) {
  const int64_t c = channel_of(of), part = blockIdx.x % of.parts;
  const int64_t plane = of.size.P / V, all = of.size.N * plane;
  const int64_t end = all * (part + 1) / of.parts;
  int64_t i = all * part / of.parts + threadIdx.x;
  int64_t n = i / plane, p = i % plane;
  // No division in the loop: it would take longer than the memory access.
  const int64_t images = kBlockThreads / plane, pixels = kBlockThreads % plane;
  for (; i < end; i += kBlockThreads) {
    f((n * of.size.C + c) * plane + p);
    n += images;
    p += pixels;
    if (p >= plane) {
      p -= plane;
      ++n;
    }
  }
}

template <typename T, int V>
__device__ Pack<T, V> pack_at(const T* array, int64_t place) {
  return reinterpret_cast<const Pack<T, V>*>(array)[place];
}
template <typename T, int V>
__device__ void put_pack(T* array, int64_t place, const Pack<T, V>& pack) {
  reinterpret_cast<Pack<T, V>*>(array)[place] = pack;
}

template <typename T, int V>
__global__ void prelu_values(Parts of, const T* x, const T* slope, T* y) {
  const T a = slope[channel_of(of)];
  over_part<V>(of, [&](int64_t place) {
    Pack<T, V> v = pack_at<T, V>(x, place);
    for (T& value : v.values) value = value > 0 ? value : value * a;
    put_pack(y, place, v);
  });
}

template <typename T, int V>
__global__ void prelu_gradients(Parts of, const T* x, const T* slope, const T* dy, T* dx,
                                T* partial) {
  const T a = slope[channel_of(of)];
  T sum = 0;
  over_part<V>(of, [&](int64_t place) {
    const Pack<T, V> v = pack_at<T, V>(x, place);
    Pack<T, V> g = pack_at<T, V>(dy, place);
    for (int k = 0; k < V; ++k) {
      if (v.values[k] > 0) continue;
      sum += g.values[k] * v.values[k];
      g.values[k] *= a;
    }
    put_pack(dx, place, g);
  });
  sum = join_block(sum, Sum());
  if (threadIdx.x == 0) partial[blockIdx.x] = sum;
}

// Adds up the partial sums of d slope. One warp per channel.
template <typename T>
__global__ void join_slopes(Parts of, const T* partial, T* dslope) {
  const int64_t c = warp_index();
  if (c >= of.size.C) return;
  T sum = 0;
  for (int64_t i = lane(); i < of.parts; i += kWarpThreads) sum += partial[c * of.parts + i];
  sum = warp_sum(sum);
  if (lane() == 0) dslope[c] = sum;
}

// Computes count, mean and sum of squared deviations of a part. Each thread sums differences from
// its own first value. That keeps the rounding error small: the distance of that value from the
// others is itself part of the deviations.
template <typename T, int V>
__global__ void part_moments(Parts of, const T* x, Triple<T>* partial) {
  T first = 0, sum = 0, squares = 0, count = 0;
  over_part<V>(of, [&](int64_t place) {
    const Pack<T, V> v = pack_at<T, V>(x, place);
    if (count == 0) first = v.values[0];
    for (T value : v.values) {
      sum += value - first;
      squares += (value - first) * (value - first);
    }
    count += V;
  });
  const T mean = count > 0 ? sum / count : T(0);
  const Triple<T> joined =
      join_block(Triple<T>{count, first + mean, squares - sum * mean}, Moments());
  if (threadIdx.x == 0) partial[blockIdx.x] = joined;
}

// Batch normalisation and PReLU of the values of one channel.
template <typename T>
struct Channel {
  T mean, factor, beta, a;

  __device__ Channel(const BatchNorm<T>& in, T mean, T inverse, int64_t c)
      : mean(mean),
        factor(in.gamma[c] * inverse),
        beta(in.beta[c]),
        a(in.slope ? in.slope[c] : T(1)) {}
  // Returns the input z of the PReLU. Subtracts first: the mean may be much larger than the
  // deviation.
  __device__ T before(T value) const { return (value - mean) * factor + beta; }
  // Multiplies a value or a gradient by the slope if z is not positive.
  __device__ T through(T z, T value) const { return z > 0 ? value : value * a; }
};

// Outputs of batch normalisation per channel, forward.
template <typename T>
struct Statistics {
  T *mean, *inverse, *running_mean, *running_variance;
  T momentum;
};

template <typename T, int V>
__global__ void normalise(Parts of, BatchNorm<T> in, const Triple<T>* partial, T* y,
                          Statistics<T> out) {
  const int64_t c = channel_of(of);
  const Triple<T> moments =
      join_array(partial + c * of.parts, of.parts, Triple<T>{0, 0, 0}, Moments());
  const T mean = moments.b, variance = moments.c < 0 ? T(0) : moments.c / moments.a;
  const T inverse = T(1) / sqrt(variance + in.epsilon);
  if (blockIdx.x % of.parts == 0 && threadIdx.x == 0) {
    out.mean[c] = mean;
    out.inverse[c] = inverse;
    const T old = out.momentum, fresh = 1 - out.momentum;
    out.running_mean[c] = old * out.running_mean[c] + fresh * mean;
    out.running_variance[c] = old * out.running_variance[c] + fresh * variance;
  }
  const Channel<T> channel(in, mean, inverse, c);
  over_part<V>(of, [&](int64_t place) {
    Pack<T, V> v = pack_at<T, V>(in.x, place);
    for (T& value : v.values) {
      const T z = channel.before(value);
      value = channel.through(z, z);
    }
    put_pack(y, place, v);
  });
}

// Computes the sums of dz, dz (x - mean) and dy min(z, 0) of a part; z is the input of the PReLU.
template <typename T, int V>
__global__ void part_gradients(Parts of, BatchNorm<T> in, const T* means, const T* inverse,
                               const T* dy, Triple<T>* partial) {
  const int64_t c = channel_of(of);
  const Channel<T> channel(in, means[c], inverse[c], c);
  Triple<T> sums{0, 0, 0};
  over_part<V>(of, [&](int64_t place) {
    const Pack<T, V> v = pack_at<T, V>(in.x, place), g = pack_at<T, V>(dy, place);
    for (int k = 0; k < V; ++k) {
      const T z = channel.before(v.values[k]), dz = channel.through(z, g.values[k]);
      sums.a += dz;
      sums.b += dz * (v.values[k] - channel.mean);
      sums.c += z > 0 ? T(0) : g.values[k] * z;
    }
  });
  sums = join_block(sums, Sum());
  if (threadIdx.x == 0) partial[blockIdx.x] = sums;
}

// Outputs of batch normalisation, backward; dslope may be null.
template <typename T>
struct NormGradients {
  T *dx, *dgamma, *dbeta, *dslope;
};

template <typename T, int V>
__global__ void norm_gradients(Parts of, BatchNorm<T> in, const T* means, const T* inverse,
                               const T* dy, const Triple<T>* partial, NormGradients<T> out) {
  const int64_t c = channel_of(of);
  const Triple<T> sums = join_array(partial + c * of.parts, of.parts, Triple<T>{0, 0, 0}, Sum());
  if (blockIdx.x % of.parts == 0 && threadIdx.x == 0) {
    out.dbeta[c] = sums.a;
    out.dgamma[c] = sums.b * inverse[c];
    if (out.dslope) out.dslope[c] = sums.c;
  }
  const Channel<T> channel(in, means[c], inverse[c], c);
  const T count = T(of.size.N * of.size.P);
  const T less = sums.a / count, turn = sums.b / count * inverse[c] * inverse[c];
  over_part<V>(of, [&](int64_t place) {
    const Pack<T, V> v = pack_at<T, V>(in.x, place);
    Pack<T, V> g = pack_at<T, V>(dy, place);
    for (int k = 0; k < V; ++k) {
      const T dz = channel.through(channel.before(v.values[k]), g.values[k]);
      g.values[k] = (dz - less - (v.values[k] - channel.mean) * turn) * channel.factor;
    }
    put_pack(out.dx, place, g);
  });
}

template <typename T>
__global__ void fill_values(T* array, int64_t count, T value) {
  const int64_t i = int64_t(blockIdx.x) * kBlockThreads + threadIdx.x;
  if (i < count) array[i] = value;
}

}  // namespace gpu
}  // namespace face
