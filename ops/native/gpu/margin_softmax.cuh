// SPDX-License-Identifier: Apache-2.0
// Kernels of the margin softmax, forward. With x^ = x / sqrt(|x|^2 + 1e-10) and w^ likewise:
//
//   logit(b, j) = scale x^_b . w^_j for j != y_b,  logit(b, y_b) = scale psi_b
//   loss_b = log sum_j exp logit(b, j) - scale psi_b
//
// The classes are processed in chunks. One matrix product computes a chunk's scores x^_b . w_j. The
// kernels convert them to weights exp(logit - maximum) / |w_j|. A second matrix product adds the
// weighted centres to the gradient of the embedding. When a row's maximum rises, the earlier sums
// are rescaled, as in FlashAttention (Dao et al., arXiv:2205.14135).
//
// The target is treated separately. The maximum starts at its logit, and `rest` is the sum over all
// other classes, so that 1 - p = rest / total is accurate even if p is near 1.
#pragma once
#include "reduce.cuh"

namespace face {
namespace gpu {

constexpr double kLengthEpsilon = 1e-10;  // added to a squared length under the root, as in heads/
constexpr double kMinLogit = -1e30;       // below every logit
constexpr int64_t kSegmentColumns = 8 * kBlockThreads;  // columns of a row of scores per block
constexpr int64_t kElsewhere = -1, kNoClass = -2;

__device__ inline float power(float x) { return expf(x); }
__device__ inline double power(double x) { return exp(x); }

// Returns the target class of row b; kElsewhere for label -1; kNoClass for an invalid label.
template <typename T>
__device__ int64_t target_of(const MarginSoftmax<T>& in, int64_t b) {
  const T label = in.label[b];
  if (!(label >= T(-1) && label <= T(in.C))) return kNoClass;
  const int64_t j = int64_t(label);
  return T(j) == label && j < in.C ? j : kNoClass;
}

// Returns 1 / sqrt(|x|^2 + epsilon), computed by one warp.
template <typename T>
__device__ T inverse_length(const T* x, int64_t n) {
  T squares = 0;
  for (int64_t i = lane(); i < n; i += kWarpThreads) squares += x[i] * x[i];
  return T(1) / sqrt(warp_sum(squares) + T(kLengthEpsilon));
}

// Scores (B, stride) of a chunk; its first n columns are n classes that start at `first`.
template <typename T>
struct Scores {
  T* values;
  int64_t stride, first, n;
  const T* inverse;  // (n,) 1 / |w_j|
  int64_t segments;  // segments of a row; there are B * segments blocks
};

// Calls f(column, is_target) for this thread's columns of its block's segment of a row.
template <typename T, typename F>
__device__ void over_columns(const Scores<T>& scores, int64_t target, F f) {
  const int64_t begin = blockIdx.x % scores.segments * kSegmentColumns;
  const int64_t end = begin + kSegmentColumns < scores.n ? begin + kSegmentColumns : scores.n;
  for (int64_t j = begin + threadIdx.x; j < end; j += kBlockThreads)
    f(j, j == target - scores.first);
}

// Computes x^ and 1 / |x| and initialises the sums. One warp per row.
template <typename T>
__global__ void begin_rows(MarginSoftmax<T> in, MarginSoftmaxResults<T> out, T* unit, T* inverse,
                           T* rest) {
  const int64_t b = warp_index();
  if (b >= in.B) return;
  const T* x = in.embedding + b * in.D;
  const T factor = inverse_length(x, in.D);
  for (int64_t d = lane(); d < in.D; d += kWarpThreads) {
    unit[b * in.D + d] = x[d] * factor;
    out.pull[b * in.D + d] = 0;
  }
  if (lane() > 0) return;
  const int64_t target = target_of(in, b);
  inverse[b] = factor;
  rest[b] = 0;
  out.cosine[b] = target == kNoClass ? T(NAN) : T(0);
  out.maximum[b] = target >= 0 ? in.scale * in.psi[b] : T(kMinLogit);
}

// Computes 1 / |w_j|; sets `share`, unless null, to a huge value. One warp per class of a chunk.
template <typename T>
__global__ void class_lengths(const T* centres, int64_t n, int64_t E, T* inverse, T* share) {
  const int64_t j = warp_index();
  if (j >= n) return;
  const T factor = inverse_length(centres + j * E, E);
  if (lane() > 0) return;
  inverse[j] = factor;
  if (share) share[j] = T(-kMinLogit);
}

// Writes the largest non-target logit of each segment of a row to maxima (B, segments).
template <typename T>
__global__ void row_maxima(MarginSoftmax<T> in, Scores<T> scores, T* maxima) {
  const int64_t b = blockIdx.x / scores.segments;
  const T* row = scores.values + b * scores.stride;
  T top = T(kMinLogit);
  over_columns(scores, target_of(in, b), [&](int64_t j, bool is_target) {
    if (!is_target) top = Largest()(top, in.scale * scores.inverse[j] * row[j]);
  });
  top = join_block(top, Largest());
  if (threadIdx.x == 0) maxima[blockIdx.x] = top;
}

template <typename T>
__device__ T new_maximum(T before, const T* maxima, int64_t segments) {
  for (int64_t i = 0; i < segments; ++i) before = Largest()(before, maxima[i]);
  return before;
}

// Converts scores to weights, 0 for the target. Writes the sums of exp(logit - maximum) over the
// non-targets of each segment to sums (B, segments).
template <typename T>
__global__ void row_weights(MarginSoftmax<T> in, MarginSoftmaxResults<T> out, Scores<T> scores,
                            const T* maxima, T* sums) {
  const int64_t b = blockIdx.x / scores.segments;
  T* row = scores.values + b * scores.stride;
  const T top = new_maximum(out.maximum[b], maxima + b * scores.segments, scores.segments);
  T sum = 0;
  over_columns(scores, target_of(in, b), [&](int64_t j, bool is_target) {
    const T inverse = scores.inverse[j];
    T weight = 0;
    if (is_target) {
      out.cosine[b] = inverse * row[j];
    } else {
      weight = power(in.scale * inverse * row[j] - top);
      sum += weight;
    }
    row[j] = weight * inverse;
  });
  sum = join_block(sum, Sum());
  if (threadIdx.x == 0) sums[blockIdx.x] = sum;
}

// Adds a chunk's sums to the earlier ones, rescaled to the new maximum. One block per row.
template <typename T>
__global__ void join_rows(MarginSoftmax<T> in, MarginSoftmaxResults<T> out, int64_t segments,
                          const T* maxima, const T* sums, T* rest) {
  const int64_t b = blockIdx.x;
  const T before = out.maximum[b];
  const T top = new_maximum(before, maxima + b * segments, segments);
  const T factor = power(before - top);
  __syncthreads();  // after all threads have read the maximum
  if (factor != 1)
    for (int64_t d = threadIdx.x; d < in.D; d += kBlockThreads) out.pull[b * in.D + d] *= factor;
  if (threadIdx.x > 0) return;
  T sum = rest[b] * factor;
  for (int64_t i = 0; i < segments; ++i) sum += sums[b * segments + i];
  rest[b] = sum;
  out.maximum[b] = top;
}

// Computes the loss, and converts the sum of weighted centres to the embedding gradient. One warp
// per row.
template <typename T>
__global__ void end_rows(MarginSoftmax<T> in, MarginSoftmaxResults<T> out, const T* unit,
                         const T* inverse, const T* rest) {
  const int64_t b = warp_index();
  if (b >= in.B) return;
  const int64_t target = target_of(in, b);
  const bool here = target >= 0;
  const T logit = in.scale * in.psi[b], top = out.maximum[b];
  const T total = rest[b] + (here ? power(logit - top) : T(0));
  if (lane() == 0) {
    out.total[b] = total;
    // Subtract first: both terms are large where log(sum) is small.
    const T rise = here ? top - logit : top;
    const T loss = here && rise == 0 ? log1p(rest[b]) : rise + log(total);
    out.loss[b] = target == kNoClass ? T(NAN) : loss;
  }
  // d loss / d x^ = scale (sum over non-targets of p_j w^_j - slope (1 - p) w^_target)
  const T* centre = in.centres + (here ? target * in.D : 0);
  const T length = inverse_length(centre, in.D);
  const T turn = here ? in.slope[b] * (rest[b] / total) * length : T(0);
  T* pull = out.pull + b * in.D;
  const T* x = unit + b * in.D;
  T along = 0;
  for (int64_t d = lane(); d < in.D; d += kWarpThreads) {
    pull[d] = in.scale * (pull[d] / total - turn * centre[d]);
    along += pull[d] * x[d];
  }
  along = warp_sum(along);
  for (int64_t d = lane(); d < in.D; d += kWarpThreads)
    pull[d] = target == kNoClass ? T(0) : inverse[b] * (pull[d] - along * x[d]);
}

}  // namespace gpu
}  // namespace face
