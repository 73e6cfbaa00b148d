// SPDX-License-Identifier: Apache-2.0
// Margin softmax, forward: losses and gradients of the embeddings (algorithm: margin_softmax.h).
//
// Included by level.cc, into the namespace of a level.
#pragma once

// Running sums of one thread over its tiles of classes.
template <typename T>
struct Running {
  T* top;       // (rows) largest logit so far
  T* sum;       // (rows) sum of exp(logit - top)
  T* excess;    // (rows) rounding error of the sum (Kahan)
  T* weighted;  // (D, rows) sum of exp(logit - top) slope w / |w|; slope is 1 for non-targets
  T* s;         // (kTileClasses, rows) scores of the tile
  T* slopes;    // (kTileClasses, rows) derivatives of the reweighted scores
  T* inverse;   // (kTileClasses) 1 / |w|
};

// Properties of the rows, which all threads read.
template <typename T>
struct Rows {
  T* packed;     // see pack()
  T* inverse;    // (rows) factor_of the embedding
  T* length;     // (rows) length of the embedding times that factor; 0 for padding rows
  T* threshold;  // (rows) see Columns
};

// Processes the classes of one tile for all rows.
template <typename T>
INLINE void forward_tile(const MarginSoftmax<T>& in, const MarginSoftmaxResults<T>& out,
                         const Rows<T>& row, int64_t rows, int64_t first, int64_t n,
                         const Running<T>& run) {
  const int64_t D = in.D;
  const bool changed = in.columns.threshold;
  T *s = run.s, *inverse = run.inverse, *slopes = run.slopes;
  const T* w = in.centres + first * D;
  scores(in, w, n, row.packed, rows, s, inverse);
  for (int64_t j = 0; j < n; ++j) {
    const T factor = in.scale * inverse[j];
    for (int64_t b = 0; b < rows; b += kLanes<T>) at(s + j * rows + b) *= factor;
  }
  for (int64_t b = 0; b < in.B; ++b) {
    const int64_t j = target_in(in.label, b, first, n);
    if (j >= 0) out.cosine[b] = s[j * rows + b] / in.scale;
  }
  if (changed) reweigh(in, row.threshold, n, rows, s, slopes);
  if (in.group > 1) nearest(in, first, n, rows, s);
  int64_t targets[kTileClasses] = {};
  for (int64_t b = 0; b < in.B; ++b) {
    const int64_t j = target_in(in.label, b, first, n);
    if (j < 0) continue;
    s[j * rows + b] = in.scale * in.psi[b];
    if (changed) slopes[j * rows + b] = in.slope[b];
    ++targets[j];
  }
  Vector<T> shares[kTileClasses] = {};
  for (int64_t b = 0; b < rows; b += kLanes<T>) {
    const Vector<T> before = at(run.top + b);
    Vector<T> top = before;
    for (int64_t j = 0; j < n; ++j) top = larger<T>(top, at(s + j * rows + b));
    if (any<T>(top > before)) {
      const Vector<T> down = exponential(before - top);
      at(run.top + b) = top;
      at(run.sum + b) *= down;
      at(run.excess + b) *= down;
      for (int64_t d = 0; d < D && in.pulls; ++d) at(run.weighted + d * rows + b) *= down;
    }
    // Many tiny exponentials matter in total although each is lost beside the largest one. So sum
    // the tile separately and carry the rounding error of the total to the next tile (Kahan).
    Vector<T> of_tile{};
    for (int64_t j = 0; j < n; ++j) {
      const Vector<T> e = exponential(at(s + j * rows + b) - top);
      at(s + j * rows + b) = e;
      of_tile += e;
    }
    const Vector<T> before_tile = at(run.sum + b), added = of_tile - at(run.excess + b);
    const Vector<T> sum = before_tile + added;
    at(run.excess + b) = (sum - before_tile) - added;
    at(run.sum + b) = sum;
    // The sum can still grow, so these probabilities are upper bounds; padding rows have 0.
    const Vector<T> part = at(row.length + b) / sum;
    if (changed)
      for (int64_t j = 0; j < n; ++j) {
        const Vector<T> slope = at(slopes + j * rows + b);
        shares[j] += at(s + j * rows + b) * larger<T>(slope, -slope) * part;
      }
    else
      for (int64_t j = 0; j < n; ++j) shares[j] += at(s + j * rows + b) * part;
  }
  for (int64_t j = 0; j < n; ++j) {
    out.share[first + j] =
        targets[j] || in.squares ? kMaxShare<T> : sum_of<T>(shares[j]) * inverse[j];
    for (int64_t b = 0; b < rows; b += kLanes<T>) at(s + j * rows + b) *= inverse[j];
    if (changed)
      for (int64_t b = 0; b < rows; b += kLanes<T>)
        at(s + j * rows + b) *= at(slopes + j * rows + b);
  }
  for (int64_t b = 0; b < in.B && !changed; ++b) {
    const int64_t j = target_in(in.label, b, first, n);
    if (j >= 0) s[j * rows + b] *= in.slope[b];
  }
  for (int64_t b = 0; b < rows && in.pulls; b += kPanelColumns<T>)
    product<T>(D, n, w, 1, D, s + b, rows, run.weighted + b, rows, true);
}

// Computes the loss and the embedding gradient of one row from the sums of all threads.
template <typename T>
INLINE void finish_row(const MarginSoftmax<T>& in, const MarginSoftmaxResults<T>& out,
                       const Running<T>* runs, int threads, int64_t rows, T inverse, int64_t b) {
  const int64_t D = in.D;
  T top = T(kMinLogit), sum = 0;
  for (int k = 0; k < threads; ++k) top = runs[k].top[b] > top ? runs[k].top[b] : top;
  for (int k = 0; k < threads; ++k)
    sum += (runs[k].sum[b] - runs[k].excess[b]) * T(exp(runs[k].top[b] - top));
  out.maximum[b] = top;
  out.total[b] = sum;
  const bool here = in.label[b] >= 0;
  // Subtract first: both terms are large where log(sum) is small.
  out.loss[b] = (here ? top - in.scale * in.psi[b] : top) + T(log(sum));
  T* pull = out.pull + b * D;
  const T* x = in.embedding + b * D;
  for (int64_t d = 0; d < D; ++d) pull[d] = 0;
  if (!here) out.cosine[b] = 0;
  if (!in.pulls) return;
  for (int k = 0; k < threads; ++k) {
    const T factor = T(exp(runs[k].top[b] - top)) * in.scale / sum;
    for (int64_t d = 0; d < D; ++d) pull[d] += factor * runs[k].weighted[d * rows + b];
  }
  if (here) {
    const T* w = in.centres + int64_t(in.label[b]) * D;
    const T factor = in.scale * in.slope[b] * factor_of(in.unit_columns, w, D);
    for (int64_t d = 0; d < D; ++d) pull[d] -= factor * w[d];
  }
  T along = 0;
  for (int64_t d = 0; d < D && in.unit_rows; ++d) along += pull[d] * x[d] * inverse;
  for (int64_t d = 0; d < D; ++d) pull[d] = inverse * (pull[d] - along * x[d] * inverse);
}

template <typename T>
void margin_softmax_forward(const MarginSoftmax<T>& in, int threads, char* workspace,
                            const MarginSoftmaxResults<T>& out) {
  const int64_t B = in.B, D = in.D, rows = round_up(B, kPanelColumns<T>);
  Arena arena{workspace};
  Rows<T> row = {arena.allocate<T>(rows * D), arena.allocate<T>(rows), arena.allocate<T>(rows),
                 arena.allocate<T>(rows)};
  for (int64_t b = 0; b < rows; ++b) row.length[b] = row.threshold[b] = 0;
  for (int64_t b = 0; b < B; ++b) {
    const T* x = in.embedding + b * D;
    row.inverse[b] = factor_of(in.unit_rows, x, D);
    row.length[b] = in.unit_rows ? T(1) : 1 / inverse_length(x, D);
    if (in.columns.threshold) row.threshold[b] = in.columns.threshold[b];
  }
  pack(in, row.inverse, row.packed);
  Running<T> runs[kMaxThreads];
  for (int k = 0; k < threads; ++k) {
    runs[k] = {arena.allocate<T>(rows),
               arena.allocate<T>(rows),
               arena.allocate<T>(rows),
               arena.allocate<T>(rows * D),
               arena.allocate<T>(kTileClasses * rows),
               arena.allocate<T>(kTileClasses * rows),
               arena.allocate<T>(kTileClasses)};
    for (int64_t b = 0; b < rows; ++b) runs[k].top[b] = T(kMinLogit);
  }
#pragma omp parallel for num_threads(threads) schedule(static)
  for (int k = 0; k < threads; ++k) {
    const int64_t size = tile_of(in);
    const Range part = share(round_up(in.C, size) / size, k, threads);
    for (int64_t tile = part.begin; tile < part.end; ++tile) {
      const int64_t first = tile * size, n = in.C - first < size ? in.C - first : size;
      forward_tile<T>(in, out, row, rows, first, n, runs[k]);
    }
  }
#pragma omp parallel for num_threads(threads) schedule(static)
  for (int k = 0; k < threads; ++k) {
    const Range part = share(B, k, threads);
    for (int64_t b = part.begin; b < part.end; ++b)
      finish_row<T>(in, out, runs, threads, rows, row.inverse[b], b);
  }
}
