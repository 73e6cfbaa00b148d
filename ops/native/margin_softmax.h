// SPDX-License-Identifier: Apache-2.0
// Softmax cross-entropy on scaled cosines with a margin on the target's, without a matrix of
// logits: classes are walked over in tiles that stay in the cache.
//
//   cosine(b, j) = x_b . w_j / (|x_b| |w_j|),  logit(b, j) = scale cosine(b, j), but
//   logit(b, y_b) = scale psi_b;  loss_b = log sum_j exp logit(b, j) - scale psi_b
//
// Forward takes the gradient of the embedding along: sum_j p(b, j) w_j needs the sum of the
// exponentials only at its end, and is multiplied down wherever the running maximum rises (as in
// Dao et al., "FlashAttention", arXiv:2205.14135, algorithm 1). Backward has the gradient of the
// centres left, for which it computes the cosines again, so that nothing of size B x C is kept:
//
//   g(b, j) = scale p(b, j) loss_gradient_b, for the target scale (p - 1) slope_b loss_gradient_b
//   d w_j = (sum_b g x_b / |x_b| - (sum_b g cosine) w_j / |w_j|) / |w_j|, and x likewise
//
// A class that no row of the batch gives a probability worth naming has no gradient worth
// computing. Forward leaves a bound for each class (`share`), and backward passes over it.
//
// Included by level.cc, into the namespace of a level.
#pragma once

constexpr double kLengthEpsilon = 1e-10;  // under the root of a squared length, as in heads/
constexpr int64_t kTile = 96;             // classes of a tile, a multiple of all kRows
template <typename T>
constexpr T kAlways = sizeof(T) == 4 ? T(1e30) : T(1e300);  // share of a class that is a target
// Part of the largest gradient that is taken for none: below the rounding of the largest.
template <typename T>
constexpr T kNegligible = sizeof(T) == 4 ? T(5e-7) : T(1e-14);

template <typename T>
int64_t margin_softmax_bytes(int64_t B, int64_t D, int threads) {
  const int64_t rows = round_up(B, kPanel<T>), dims = round_up(D, kPanel<T>);
  // Packed rows twice, five arrays by row; for each thread scores, gradients, the centres of a tile
  // and their gradients, three arrays by class or row, the embedding's gradient. 64 for each
  // alignment.
  const int64_t shared = rows * dims * 2 + rows * 5;
  const int64_t each = kTile * (2 * rows + 2 * dims + 2) + rows * (dims + 3);
  return (shared + each * threads) * int64_t(sizeof(T)) + 64 * (8 + 8 * int64_t(threads));
}

template <typename T>
T inverse_length(const T* x, int64_t n) {
  Vector<T> squares{};
  int64_t i = 0;
  for (; i + kLanes<T> <= n; i += kLanes<T>) squares += at(x + i) * at(x + i);
  T sum = sum_of<T>(squares);
  for (; i < n; ++i) sum += x[i] * x[i];
  return 1 / T(__builtin_sqrt(sum + kLengthEpsilon));
}

// Row of the target of b within a tile of n classes from `first` on, or -1.
template <typename T>
INLINE int64_t target_in(const T* label, int64_t b, int64_t first, int64_t n) {
  const int64_t row = int64_t(label[b]) - first;
  return label[b] >= 0 && row >= 0 && row < n ? row : -1;
}

// Place of a label in a rising list of classes, or -1.
template <typename T>
INLINE int64_t place_of(T label, const int32_t* classes, int64_t n) {
  if (!(label >= T(classes[0]) && label <= T(classes[n - 1]))) return -1;
  int64_t low = 0, high = n - 1;
  while (low < high) {
    const int64_t middle = (low + high) / 2;
    if (T(classes[middle]) < label)
      low = middle + 1;
    else
      high = middle;
  }
  return T(classes[low]) == label ? low : -1;
}

// Normalised rows side by side: out[panel][d][b within the panel].
template <typename T>
void pack(const MarginSoftmax<T>& in, const T* inverse, T* out) {
  for (int64_t b = 0; b < in.B; ++b)
    for (int64_t d = 0; d < in.D; ++d)
      out[(b / kPanel<T> * in.D + d) * kPanel<T> + b % kPanel<T>] =
          in.embedding[b * in.D + d] * inverse[b];
}

// s(j, b) = w_j . x_b / |x_b| for n classes, and 1 / |w_j|.
template <typename T>
INLINE void scores(const T* w, int64_t n, int64_t D, const T* packed, int64_t rows, T* s,
                   T* inverse) {
  for (int64_t j = 0; j < n; ++j) inverse[j] = inverse_length(w + j * D, D);
  for (int64_t b = 0; b < rows; b += kPanel<T>)
    product<T>(n, D, w, D, 1, packed + b * D, kPanel<T>, s + b, rows, false);
}
