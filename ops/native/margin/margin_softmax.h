// SPDX-License-Identifier: Apache-2.0
// Margin softmax: softmax cross-entropy on scaled cosines with a margin on the target cosine. It
// stores no matrix of logits but processes the classes in tiles that fit into the cache.
//
//   cosine(b, j) = x_b . w_j / (|x_b| |w_j|)
//   logit(b, j) = scale cosine(b, j) for j != y_b,  logit(b, y_b) = scale psi_b
//   loss_b = log sum_j exp logit(b, j) - scale psi_b
//
// Forward also computes the gradient of the embedding. It accumulates sum_j p(b, j) w_j without the
// final denominator and rescales it whenever the running maximum rises (Dao et al.,
// "FlashAttention", arXiv:2205.14135, algorithm 1). Backward computes the gradient of the class
// centres. It recomputes the cosines, so that no array of size B x C exists:
//
//   g(b, j) = scale p(b, j) loss_gradient_b for j != y_b
//   g(b, y_b) = scale (p(b, y_b) - 1) slope_b loss_gradient_b
//   d w_j = (sum_b g x_b / |x_b| - (sum_b g cosine) w_j / |w_j|) / |w_j|, and x likewise
//
// Without normalisation of x or w, its length is 1 in these formulas and the second term of its
// gradient is zero. With `squares`, |w_j|^2 / 2 is subtracted from the inner product. The score is
// then a negative half squared distance plus |x_b|^2 / 2, and d w_j is sum_b g (x_b - w_j). With
// `columns`, the scores of non-target classes are reweighted and g includes the derivative. With
// `group`, only the nearest of several centres of a class counts.
//
// Backward skips a class whose gradient is negligible because its probability is tiny in every row.
// Forward computes the upper bound (`share`) that it needs for that.
//
// Included by level.cc, into the namespace of a level.
#pragma once

constexpr double kLengthEpsilon = 1e-10;  // added to a squared length under the root, as in heads/
constexpr int64_t kTileClasses = 96;  // classes of a tile, a multiple of every level's kTileRows
template <typename T>
constexpr T kMaxShare = sizeof(T) == 4 ? T(1e30) : T(1e300);  // `share` of a class that is a target
// Fraction of the largest gradient below which a gradient counts as zero: less than its rounding.
template <typename T>
constexpr T kNegligibleFraction = sizeof(T) == 4 ? T(5e-7) : T(1e-14);

template <typename T>
int64_t margin_softmax_bytes(int64_t B, int64_t D, int threads) {
  const int64_t rows = round_up(B, kPanelColumns<T>), dims = round_up(D, kPanelColumns<T>);
  // Shared: packed rows twice and five arrays of one value per row. Per thread: scores, gradients,
  // derivatives, centres of a tile and their gradients, arrays of one value per class or row, and
  // the embedding gradient. Each array needs up to 64 bytes of alignment.
  const int64_t shared = rows * dims * 2 + rows * 5;
  const int64_t each = kTileClasses * (3 * rows + 2 * dims + 2) + rows * (dims + 3);
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

// Returns the factor of an embedding or a centre in the cosine: 1 / length, or 1 if not normalised.
template <typename T>
INLINE T factor_of(bool unit, const T* x, int64_t n) {
  return unit ? inverse_length(x, n) : T(1);
}

// Returns the number of centres in a tile: a multiple of the group size.
template <typename T>
INLINE int64_t tile_of(const MarginSoftmax<T>& in) {
  return kTileClasses - kTileClasses % in.group;
}

// Returns the index of row b's target in a tile of n classes that starts at `first`, or -1.
template <typename T>
INLINE int64_t target_in(const T* label, int64_t b, int64_t first, int64_t n) {
  const int64_t row = int64_t(label[b]) - first;
  return label[b] >= 0 && row >= 0 && row < n ? row : -1;
}

// Returns the index of a label in a sorted list of classes, or -1.
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

// Copies the normalised embeddings panel by panel: out[panel][d][b within the panel].
template <typename T>
void pack(const MarginSoftmax<T>& in, const T* inverse, T* out) {
  for (int64_t b = 0; b < in.B; ++b)
    for (int64_t d = 0; d < in.D; ++d)
      out[(b / kPanelColumns<T> * in.D + d) * kPanelColumns<T> + b % kPanelColumns<T>] =
          in.embedding[b * in.D + d] * inverse[b];
}

// Computes s(j, b) = w_j . x_b / |x_b| and 1 / |w_j| for n classes.
template <typename T>
INLINE void scores(const MarginSoftmax<T>& in, const T* w, int64_t n, const T* packed, int64_t rows,
                   T* s, T* inverse) {
  const int64_t D = in.D;
  for (int64_t j = 0; j < n; ++j) inverse[j] = factor_of(in.unit_columns, w + j * D, D);
  for (int64_t b = 0; b < rows; b += kPanelColumns<T>)
    product<T>(n, D, w, D, 1, packed + b * D, kPanelColumns<T>, s + b, rows, false);
  for (int64_t j = 0; j < n && in.squares; ++j) {
    const T length = 1 / inverse_length(w + j * D, D);
    for (int64_t b = 0; b < rows; b += kLanes<T>) at(s + j * rows + b) -= length * length / 2;
  }
}

// Reweights the logits s(j, b) (see Columns) and writes their derivatives.
template <typename T>
INLINE void reweigh(const MarginSoftmax<T>& in, const T* threshold, int64_t n, int64_t rows, T* s,
                    T* slopes) {
  const Columns<T>& to = in.columns;
  for (int64_t b = 0; b < rows; b += kLanes<T>) {
    const Vector<T> bound = at(threshold + b), rest = to.rest - Vector<T>{};
    for (int64_t j = 0; j < n; ++j) {
      const Vector<T> c = at(s + j * rows + b) / in.scale;
      const Bits<T> hard = c > bound;
      const Vector<T> value = (to.square * c + to.linear) * c + to.constant;
      const Vector<T> slope = to.slope_linear * c + to.slope_constant;
      at(s + j * rows + b) = in.scale * (hard ? value : rest * c);
      at(slopes + j * rows + b) = hard ? slope : rest;
    }
  }
}

// Keeps the logit of each class's nearest centre, or of the label's centre in the target class. The
// logits of all other centres become kMinLogit, whose exponential is 0.
template <typename T>
INLINE void nearest(const MarginSoftmax<T>& in, int64_t first, int64_t n, int64_t rows, T* s) {
  const Vector<T> none = T(kMinLogit) - Vector<T>{};
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
