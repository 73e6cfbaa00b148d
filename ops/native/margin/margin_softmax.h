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
// Either side may be left as it is: its length is 1 in all of that, and the second term of its
// gradient falls away.  Of inner products |w_j|^2 / 2 may be taken off (`squares`), which makes them
// distances up to |x_b|^2 / 2; d w_j is then sum_b g (x_b - w_j).  `columns` reweighs the scores of the other classes (g then has their slope),
// `group` takes the nearest of several centres.
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
  // Packed rows twice, five arrays by row; for each thread scores, gradients, slopes, the centres
  // of a tile and their gradients, three arrays by class or row, the embedding's gradient. 64 for
  // each alignment.
  const int64_t shared = rows * dims * 2 + rows * 5;
  const int64_t each = kTile * (3 * rows + 2 * dims + 2) + rows * (dims + 3);
  return (shared + each * threads) * int64_t(sizeof(T)) + 64 * (8 + 9 * int64_t(threads));
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

// What a side is multiplied by before the product.
template <typename T>
INLINE T factor_of(bool unit, const T* x, int64_t n) {
  return unit ? inverse_length(x, n) : T(1);
}

// Classes of a tile: whole groups of centres.
template <typename T>
INLINE int64_t tile_of(const MarginSoftmax<T>& in) {
  return kTile - kTile % in.group;
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
INLINE void scores(const MarginSoftmax<T>& in, const T* w, int64_t n, const T* packed, int64_t rows,
                   T* s, T* inverse) {
  const int64_t D = in.D;
  for (int64_t j = 0; j < n; ++j) inverse[j] = factor_of(in.unit_columns, w + j * D, D);
  for (int64_t b = 0; b < rows; b += kPanel<T>)
    product<T>(n, D, w, D, 1, packed + b * D, kPanel<T>, s + b, rows, false);
  for (int64_t j = 0; j < n && in.squares; ++j) {
    const T length = 1 / inverse_length(w + j * D, D);
    for (int64_t b = 0; b < rows; b += kLanes<T>) at(s + j * rows + b) -= length * length / 2;
  }
}

// Changes logits s(j, b) as the row's threshold says, and gives the slopes.
template <typename T>
INLINE void reweigh(const MarginSoftmax<T>& in, const T* threshold, int64_t n, int64_t rows, T* s,
                    T* slopes) {
  const Columns<T>& to = in.columns;
  for (int64_t b = 0; b < rows; b += kLanes<T>) {
    const Vector<T> limit = at(threshold + b), rest = to.rest - Vector<T>{};
    for (int64_t j = 0; j < n; ++j) {
      const Vector<T> c = at(s + j * rows + b) / in.scale;
      const Bits<T> hard = c > limit;
      const Vector<T> value = (to.square * c + to.linear) * c + to.constant;
      const Vector<T> slope = to.slope_linear * c + to.slope_constant;
      at(s + j * rows + b) = in.scale * (hard ? value : rest * c);
      at(slopes + j * rows + b) = hard ? slope : rest;
    }
  }
}

// Leaves the logit of the nearest centre of each class alone, of the target's class that of the
// label: what is left of the others is 0 after the exponential.
template <typename T>
INLINE void nearest(const MarginSoftmax<T>& in, int64_t first, int64_t n, int64_t rows, T* s) {
  const Vector<T> none = T(kLowest) - Vector<T>{};
  for (int64_t j = 0; j < n; j += in.group)
    for (int64_t b = 0; b < rows; b += kLanes<T>) {
      Vector<T> top = at(s + j * rows + b);
      int64_t place[kLanes<T>] = {};
      for (int64_t k = 1; k < in.group; ++k) {
        const Vector<T> one = at(s + (j + k) * rows + b);
        for (int l = 0; l < kLanes<T>; ++l)
          if (one[l] > top[l]) place[l] = k;
        top = larger<T>(top, one);
      }
      for (int l = 0; l < kLanes<T> && b + l < in.B; ++l) {
        const int64_t target = target_in(in.label, b + l, first + j, in.group);
        if (target >= 0) place[l] = target;
      }
      for (int64_t k = 0; k < in.group; ++k) {
        Vector<T>& one = at(s + (j + k) * rows + b);
        for (int l = 0; l < kLanes<T>; ++l) one[l] = place[l] == k ? one[l] : none[l];
      }
    }
}
