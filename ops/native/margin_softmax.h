// SPDX-License-Identifier: Apache-2.0
// Softmax cross-entropy on scaled cosines with a margin on the target's, without a matrix of
// logits: classes are walked over in tiles that stay in the cache.
//
//   cosine(b, j) = x_b . w_j / (|x_b| |w_j|),  logit(b, j) = scale cosine(b, j), but
//   logit(b, y_b) = scale psi_b;  loss_b = log sum_j exp logit(b, j) - scale psi_b
//
// Backward computes the cosines of a tile again, so that nothing of size B x C is kept:
//
//   g(b, j) = scale p(b, j) loss_gradient_b, for the target scale (p - 1) slope_b loss_gradient_b
//   d w_j = (sum_b g x_b / |x_b| - (sum_b g cosine) w_j / |w_j|) / |w_j|, and x likewise
//
// Included by level.cc, into the namespace of a level.
#pragma once

constexpr double kLengthEpsilon = 1e-10;  // under the root of a squared length, as in heads/
constexpr int64_t kTile = 96;             // classes of a tile, a multiple of all kRows

INLINE int64_t round_up(int64_t n, int64_t to) { return (n + to - 1) / to * to; }

// Takes pieces of the working memory, each aligned to a cache line and set to zero.
struct Memory {
  char* next;
  template <typename T>
  T* take(int64_t count) {
    T* piece = reinterpret_cast<T*>(next);
    const int64_t bytes = round_up(count * int64_t(sizeof(T)), 64);
    __builtin_memset(piece, 0, bytes);
    next += bytes;
    return piece;
  }
};

template <typename T>
int64_t margin_softmax_bytes(int64_t B, int64_t D, int threads) {
  const int64_t rows = round_up(B, kPanel<T>), dims = round_up(D, kPanel<T>);
  // Packed rows twice, four arrays by row; for each thread scores, gradients, a tile of centres'
  // gradients, lengths, two arrays by row or the embedding's gradient.  64 for each alignment.
  const int64_t shared = rows * dims * 2 + rows * 4;
  const int64_t each = kTile * (2 * rows + dims + 1) + rows * (dims + 2);
  return (shared + each * threads) * int64_t(sizeof(T)) + 64 * (8 + 8 * int64_t(threads));
}

template <typename T>
T sum_of(Vector<T> v) {
  T sum = 0;
  for (int i = 0; i < kLanes<T>; ++i) sum += v[i];
  return sum;
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

template <typename T>
void margin_softmax_forward(const MarginSoftmax<T>& in, int threads, char* working, T* loss,
                            T* maximum, T* total) {
  const int64_t B = in.B, D = in.D, rows = round_up(B, kPanel<T>);
  Memory memory{working};
  T* inverse = memory.take<T>(rows);
  T* packed = memory.take<T>(rows * D);
  for (int64_t b = 0; b < B; ++b) inverse[b] = inverse_length(in.embedding + b * D, D);
  pack(in, inverse, packed);
  T *maxima[kMostThreads], *totals[kMostThreads], *tiles[kMostThreads], *factors[kMostThreads];
  for (int k = 0; k < threads; ++k) {
    maxima[k] = memory.take<T>(rows);
    totals[k] = memory.take<T>(rows);
    tiles[k] = memory.take<T>(kTile * rows);
    factors[k] = memory.take<T>(kTile);
    for (int64_t b = 0; b < rows; ++b) maxima[k][b] = kLowest;
  }
#pragma omp parallel for num_threads(threads) schedule(static)
  for (int k = 0; k < threads; ++k) {
    T *s = tiles[k], *factor = factors[k];
    const Range part = share(round_up(in.C, kTile) / kTile, k, threads);
    for (int64_t tile = part.begin; tile < part.end; ++tile) {
      const int64_t first = tile * kTile, n = in.C - first < kTile ? in.C - first : kTile;
      scores(in.centres + first * D, n, D, packed, rows, s, factor);
      for (int64_t j = 0; j < n; ++j) {
        factor[j] *= in.scale;
        for (int64_t b = 0; b < rows; b += kLanes<T>) at(s + j * rows + b) *= factor[j];
      }
      for (int64_t b = 0; b < B; ++b) {
        const int64_t j = target_in(in.label, b, first, n);
        if (j >= 0) s[j * rows + b] = in.scale * in.psi[b];
      }
      for (int64_t b = 0; b < rows; b += kLanes<T>) {
        const Vector<T> before = at(maxima[k] + b);
        Vector<T> top = before;
        for (int64_t j = 0; j < n; ++j) top = larger<T>(top, at(s + j * rows + b));
        Vector<T> sum = at(totals[k] + b) * exponential(before - top);
        for (int64_t j = 0; j < n; ++j) sum += exponential(at(s + j * rows + b) - top);
        at(maxima[k] + b) = top;
        at(totals[k] + b) = sum;
      }
    }
  }
  for (int64_t b = 0; b < B; ++b) {
    T top = kLowest, sum = 0;
    for (int k = 0; k < threads; ++k) top = maxima[k][b] > top ? maxima[k][b] : top;
    for (int k = 0; k < threads; ++k) sum += totals[k][b] * T(exp(maxima[k][b] - top));
    maximum[b] = top;
    total[b] = sum;
    // The difference first: both are large where the sum's logarithm is small.
    loss[b] = (in.label[b] >= 0 ? top - in.scale * in.psi[b] : top) + T(log(sum));
  }
}

template <typename T>
void margin_softmax_backward(const MarginSoftmax<T>& in, int threads, char* working,
                             const T* maximum, const T* total, const T* loss_gradient,
                             T* embedding_gradient, T* centres_gradient) {
  const int64_t B = in.B, D = in.D;
  const int64_t rows = round_up(B, kPanel<T>), dims = round_up(D, kPanel<T>);
  Memory memory{working};
  T* inverse = memory.take<T>(rows);
  T* top = memory.take<T>(rows);
  T* factor = memory.take<T>(rows);
  T* packed = memory.take<T>(rows * D);
  T* by_dims = memory.take<T>(dims * B);  // [panel][b][d within the panel]
  for (int64_t b = 0; b < B; ++b) inverse[b] = inverse_length(in.embedding + b * D, D);
  pack(in, inverse, packed);
  for (int64_t b = 0; b < B; ++b) {
    for (int64_t d = 0; d < D; ++d)
      by_dims[(d / kPanel<T> * B + b) * kPanel<T> + d % kPanel<T>] =
          in.embedding[b * D + d] * inverse[b];
    top[b] = maximum[b];
    factor[b] = loss_gradient[b] * in.scale / total[b];  // 0 for the padding rows
  }
  T *tiles[kMostThreads], *gradients[kMostThreads], *inverses[kMostThreads];
  T *parts[kMostThreads], *sums[kMostThreads];
  for (int k = 0; k < threads; ++k) {
    tiles[k] = memory.take<T>(kTile * rows);
    gradients[k] = memory.take<T>(kTile * rows);
    inverses[k] = memory.take<T>(kTile);
    parts[k] = memory.take<T>(kTile * dims);
    sums[k] = memory.take<T>(D * rows);
  }
#pragma omp parallel for num_threads(threads) schedule(static)
  for (int k = 0; k < threads; ++k) {
    T *s = tiles[k], *g = gradients[k], *inv = inverses[k];
    const Range part = share(round_up(in.C, kTile) / kTile, k, threads);
    for (int64_t tile = part.begin; tile < part.end; ++tile) {
      const int64_t first = tile * kTile, n = in.C - first < kTile ? in.C - first : kTile;
      const T* w = in.centres + first * D;
      scores(w, n, D, packed, rows, s, inv);
      for (int64_t j = 0; j < n; ++j) {
        const T f = in.scale * inv[j];
        for (int64_t b = 0; b < rows; b += kLanes<T>)
          at(g + j * rows + b) =
              exponential(at(s + j * rows + b) * f - at(top + b)) * at(factor + b);
      }
      for (int64_t b = 0; b < B; ++b) {
        const int64_t j = target_in(in.label, b, first, n);
        if (j < 0) continue;
        const T p = T(exp(in.scale * in.psi[b] - maximum[b])) / total[b];
        g[j * rows + b] = loss_gradient[b] * in.scale * in.slope[b] * (p - 1);
      }
      T along[kTile];  // (sum_b g cosine) / |w_j|^2
      for (int64_t j = 0; j < n; ++j) {
        Vector<T> sum{};
        for (int64_t b = 0; b < rows; b += kLanes<T>) {
          at(g + j * rows + b) *= inv[j];
          sum += at(g + j * rows + b) * at(s + j * rows + b);
        }
        along[j] = sum_of<T>(sum) * inv[j] * inv[j];
      }
      for (int64_t b = 0; b < rows; b += kPanel<T>)
        product<T>(D, n, w, 1, D, g + b, rows, sums[k] + b, rows, true);
      for (int64_t d = 0; d < dims; d += kPanel<T>)
        product<T>(n, B, g, rows, 1, by_dims + d * B, kPanel<T>, parts[k] + d, dims, false);
      for (int64_t j = 0; j < n; ++j)
        for (int64_t d = 0; d < D; ++d)
          centres_gradient[(first + j) * D + d] = parts[k][j * dims + d] - along[j] * w[j * D + d];
    }
  }
  for (int64_t b = 0; b < B; ++b) {
    T cosine = 0;
    for (int64_t d = 0; d < D; ++d) {
      T sum = 0;
      for (int k = 0; k < threads; ++k) sum += sums[k][d * rows + b];
      sums[0][d * rows + b] = sum;
      cosine += sum * in.embedding[b * D + d] * inverse[b];
    }
    for (int64_t d = 0; d < D; ++d)
      embedding_gradient[b * D + d] =
          inverse[b] *
          (sums[0][d * rows + b] - cosine * in.embedding[b * D + d] * inverse[b]);
  }
}
