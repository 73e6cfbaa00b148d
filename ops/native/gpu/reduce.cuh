// SPDX-License-Identifier: Apache-2.0
// Deterministic reductions over the lanes of a warp and the threads of a block.
#pragma once
#include "cuda.h"

namespace face {
namespace gpu {

// Three values that are reduced together.
template <typename T>
struct Triple {
  T a, b, c;
};

template <typename T>
__device__ T from_lane(T value, int distance) {
  return __shfl_xor_sync(0xffffffffu, value, distance);
}
template <typename T>
__device__ Triple<T> from_lane(Triple<T> value, int distance) {
  return {from_lane(value.a, distance), from_lane(value.b, distance), from_lane(value.c, distance)};
}

struct Sum {
  template <typename T>
  __device__ T operator()(T x, T y) const {
    return x + y;
  }
  template <typename T>
  __device__ Triple<T> operator()(Triple<T> x, Triple<T> y) const {
    return {x.a + y.a, x.b + y.b, x.c + y.c};
  }
};

struct Largest {
  template <typename T>
  __device__ T operator()(T x, T y) const {
    return y > x ? y : x;
  }
};

// Merges count, mean and sum of squared deviations of two sets of values (Chan, Golub and LeVeque,
// "Updating formulae and a pairwise algorithm for computing sample variances").
struct Moments {
  template <typename T>
  __device__ Triple<T> operator()(Triple<T> x, Triple<T> y) const {
    const T count = x.a + y.a;
    if (count == 0) return x;
    const T away = y.b - x.b, part = y.a / count;
    return {count, x.b + away * part, x.c + y.c + away * away * x.a * part};
  }
};

// Returns the reduced value of a warp. If join(x, y) differs from join(y, x), only lane 0 has the
// right value. All lanes of the warp must call it.
template <typename V, typename F>
__device__ V join_warp(V value, F join) {
  for (int distance = kWarpThreads / 2; distance > 0; distance /= 2)
    value = join(value, from_lane(value, distance));
  return value;
}

// Returns the reduced value of a block to every thread. All threads of the block must call it.
template <typename V, typename F>
__device__ V join_block(V value, F join) {
  __shared__ V parts[kBlockWarps];
  value = join_warp(value, join);
  if (threadIdx.x % kWarpThreads == 0) parts[threadIdx.x / kWarpThreads] = value;
  __syncthreads();
  value = parts[0];
  for (int i = 1; i < kBlockWarps; ++i) value = join(value, parts[i]);
  __syncthreads();  // before the next call overwrites `parts`
  return value;
}

// Returns the reduced value of an array to every thread; `none` is the neutral element.
template <typename V, typename F>
__device__ V join_array(const V* values, int64_t count, V none, F join) {
  __shared__ V joined;
  if (threadIdx.x < kWarpThreads) {
    V value = none;
    for (int64_t i = threadIdx.x; i < count; i += kWarpThreads) value = join(value, values[i]);
    value = join_warp(value, join);
    if (threadIdx.x == 0) joined = value;
  }
  __syncthreads();
  const V value = joined;
  __syncthreads();
  return value;
}

template <typename T>
__device__ T warp_sum(T value) {
  return join_warp(value, Sum());
}

// Returns the index of this thread's warp in the grid, such as the row that it processes.
__device__ inline int64_t warp_index() {
  return int64_t(blockIdx.x) * kBlockWarps + threadIdx.x / kWarpThreads;
}
__device__ inline int64_t lane() { return threadIdx.x % kWarpThreads; }

}  // namespace gpu
}  // namespace face
