// SPDX-License-Identifier: Apache-2.0
// Kernels of the margin softmax: backward, and the SGD step on the class centres.
//
// They recompute the scores of a chunk and convert them to g(b, j) = d loss / d cosine(b, j):
//
//   g(b, j) = scale p(b, j) gradient_b for j != y_b
//   g(b, y_b) = scale (p(b, y_b) - 1) slope_b gradient_b
//   d w_j = (u_j - (u_j . w^_j) w^_j) / |w_j|, where the matrix product u_j is sum_b g(b, j) x^_b
#pragma once
#include "margin_softmax.cuh"

namespace face {
namespace gpu {

// Per-row values for the conversion of scores to gradients.
template <typename T>
struct Rows {
  T* unit;    // (B, E) x^
  T* factor;  // (B,) scale gradient_b / total_b
  T* target;  // (B,) g of the target
};

// Computes the per-row values, and d embedding unless it is null: forward's pull times the
// gradient. If `gradient` is null, every row has the gradient `each`. One warp per row.
template <typename T>
__global__ void begin_gradient(MarginSoftmax<T> in, MarginSoftmaxResults<T> result,
                               const T* gradient, T each, Rows<T> rows, T* embedding_gradient) {
  const int64_t b = warp_index();
  if (b >= in.B) return;
  const T* x = in.embedding + b * in.D;
  const T length = inverse_length(x, in.D), g = gradient ? gradient[b] : each;
  const int64_t target = target_of(in, b);
  // A row with an invalid label contributes zero. Multiplication by 0 would keep a NaN.
  for (int64_t d = lane(); d < in.D; d += kWarpThreads) {
    rows.unit[b * in.D + d] = target == kNoClass ? T(0) : x[d] * length;
    if (embedding_gradient) {
      const T pull = target == kNoClass ? T(0) : g * result.pull[b * in.D + d];
      embedding_gradient[b * in.D + d] = pull;
    }
  }
  if (lane() > 0) return;
  const T total = result.total[b], logit = in.scale * in.psi[b];
  rows.factor[b] = target == kNoClass ? T(0) : g * in.scale / total;
  T less = 0;  // p - 1
  if (target >= 0)
    less = result.loss ? expm1(-result.loss[b]) : power(logit - result.maximum[b]) / total - 1;
  rows.target[b] = target >= 0 ? g * in.scale * in.slope[b] * less : T(0);
}

// Converts scores to gradients of the cosines. Blocks as in row_maxima.
template <typename T>
__global__ void score_gradients(MarginSoftmax<T> in, const T* maximum, Rows<T> rows,
                                Scores<T> scores) {
  const int64_t b = blockIdx.x / scores.segments;
  T* row = scores.values + b * scores.stride;
  const T top = maximum[b], factor = rows.factor[b], at_target = rows.target[b];
  over_columns(scores, target_of(in, b), [&](int64_t j, bool is_target) {
    const T logit = in.scale * scores.inverse[j] * row[j];
    row[j] = is_target ? at_target : factor == 0 ? T(0) : power(logit - top) * factor;
  });
}

// Calls f(d, d w[d]) for one class, given its sum u (E,) of weighted rows. One warp per class.
template <typename T, typename F>
__device__ void over_class(const T* centre, const T* pulled, T inverse, int64_t E, F f) {
  T along = 0;
  for (int64_t d = lane(); d < E; d += kWarpThreads) along += pulled[d] * centre[d];
  along = warp_sum(along) * inverse * inverse;
  for (int64_t d = lane(); d < E; d += kWarpThreads)
    f(d, inverse * (pulled[d] - along * centre[d]));
}

// Converts u to the gradients of a chunk of classes in place.
template <typename T>
__global__ void class_gradients(const T* centres, const T* inverse, int64_t n, int64_t E,
                                T* gradients) {
  const int64_t j = warp_index();
  if (j >= n) return;
  T* own = gradients + j * E;
  over_class(centres + j * E, own, inverse[j], E, [&](int64_t d, T value) { own[d] = value; });
}

// Applies the SGD step to a chunk of n classes that starts at `first`.
template <typename T>
__global__ void class_steps(Step<T> step, int64_t first, const T* inverse, int64_t n, int64_t E,
                            const T* pulled) {
  const int64_t j = warp_index();
  if (j >= n) return;
  T *centre = step.centres + (first + j) * E, *velocity = step.velocity + (first + j) * E;
  const T rate = *step.rate;
  over_class(centre, pulled + j * E, inverse[j], E, [&](int64_t d, T gradient) {
    const T change =
        step.momentum * velocity[d] - rate * (gradient + step.weight_decay * centre[d]);
    velocity[d] = change;
    centre[d] += change;
  });
}

}  // namespace gpu
}  // namespace face
