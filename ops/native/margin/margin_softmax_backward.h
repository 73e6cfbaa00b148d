// SPDX-License-Identifier: Apache-2.0
// Margin softmax, backward: gradients of the class centres, or an in-place SGD step on them.
//
// Included by level.cc, into the namespace of a level.
#pragma once

template <typename T>
INLINE T target_probability(const MarginSoftmax<T>& in, const MarginSoftmaxState<T>& state,
                            int64_t b) {
  return T(exp(in.scale * in.psi[b] - state.maximum[b])) / state.total[b];
}

// Returns the length of a row's contribution to the gradient of its target centre, without the
// scale.
template <typename T>
INLINE T target_pull(const MarginSoftmax<T>& in, const MarginSoftmaxState<T>& state,
                     const T* loss_gradient, int64_t b) {
  if (in.label[b] < 0) return 0;
  const T p = target_probability<T>(in, state, b);
  const T length = in.unit_rows ? T(1) : 1 / inverse_length(in.embedding + b * in.D, in.D);
  const T pull = __builtin_fabs(loss_gradient[b] * (p - 1) * in.slope[b] * length);
  if (!in.unit_columns) return pull;
  const T cosine = state.cosine[b] / length;
  const T sine = T(__builtin_sqrt(cosine * cosine < 1 ? 1 - cosine * cosine : 0));
  return pull * sine * inverse_length(in.centres + int64_t(in.label[b]) * in.D, in.D);
}

// Buffers of one thread for the gradient of a tile of classes, whose centres are the rows of w.
template <typename T>
struct Tile {
  T *s, *g;     // (kTileClasses, rows) scores; gradients of the cosines
  T* slopes;    // (kTileClasses, rows) derivatives of reweighted scores; null without `columns`
  T* inverse;   // (kTileClasses) factor_of the centre
  T* along;     // (kTileClasses) (sum_b g cosine) / |w|^2
  T* gradient;  // (kTileClasses, dims) sum_b g x_b / (|x_b| |w|)
  T* gathered;  // (kTileClasses, D) copies of centres that are not adjacent
};

// Calls row(class, gradient, along) for each class with a gradient, d w = gradient - along w, and
// none(class) for each skipped class.
template <typename T, typename Row, typename None>
INLINE void centre_gradients(const MarginSoftmax<T>& in, int threads, char* workspace,
                             const MarginSoftmaxState<T>& state, const T* loss_gradient, Row row,
                             None none) {
  const int64_t B = in.B, D = in.D;
  const int64_t rows = round_up(B, kPanelColumns<T>), dims = round_up(D, kPanelColumns<T>);
  Arena arena{workspace};
  T* inverse = arena.allocate<T>(rows);
  T* top = arena.allocate<T>(rows);
  T* factor = arena.allocate<T>(rows);
  T* threshold = arena.allocate<T>(rows);
  const bool changed = in.columns.threshold;
  T* packed = arena.allocate<T>(rows * D);
  T* by_dims = arena.allocate<T>(dims * B);  // [panel][b][d within the panel]
  for (int64_t b = 0; b < B; ++b) {
    inverse[b] = factor_of(in.unit_rows, in.embedding + b * D, D);
    if (changed) threshold[b] = in.columns.threshold[b];
  }
  pack(in, inverse, packed);
  T largest = 0, most = 0;
  for (int64_t b = 0; b < B; ++b) {
    for (int64_t d = 0; d < D; ++d)
      by_dims[(d / kPanelColumns<T> * B + b) * kPanelColumns<T> + d % kPanelColumns<T>] =
          in.embedding[b * D + d] * inverse[b];
    top[b] = state.maximum[b];
    factor[b] = loss_gradient[b] * in.scale / state.total[b];  // 0 for the padding rows
    const T pull = target_pull<T>(in, state, loss_gradient, b),
            g = __builtin_fabs(loss_gradient[b]);
    largest = pull > largest ? pull : largest;
    most = g > most ? g : most;
  }
  // A smaller gradient counts as 0. If any value is NaN, no class is skipped.
  const T least = kNegligibleFraction<T> * largest;
  Tile<T> tiles[kMaxThreads];
  for (int k = 0; k < threads; ++k)
    tiles[k] = {arena.allocate<T>(kTileClasses * rows),
                arena.allocate<T>(kTileClasses * rows),
                changed ? arena.allocate<T>(kTileClasses * rows) : nullptr,
                arena.allocate<T>(kTileClasses),
                arena.allocate<T>(kTileClasses),
                arena.allocate<T>(kTileClasses * dims),
                arena.allocate<T>(kTileClasses * D)};
  // Computes the gradients of n classes in ascending order.
  const auto compute = [&](const Tile<T>& tile, const int32_t* classes, int64_t n) {
    T *s = tile.s, *g = tile.g, *inv = tile.inverse;
    const T* w = in.centres + int64_t(classes[0]) * D;
    if (classes[n - 1] - classes[0] != n - 1) {
      for (int64_t j = 0; j < n; ++j)
        __builtin_memcpy(tile.gathered + j * D, in.centres + int64_t(classes[j]) * D,
                         D * sizeof(T));
      w = tile.gathered;
    }
    scores(in, w, n, packed, rows, s, inv);
    if (!changed && in.group == 1) {
      for (int64_t j = 0; j < n; ++j) {
        const T f = in.scale * inv[j];
        for (int64_t b = 0; b < rows; b += kLanes<T>)
          at(g + j * rows + b) =
              exponential(at(s + j * rows + b) * f - at(top + b)) * at(factor + b);
      }
    } else {
      for (int64_t j = 0; j < n; ++j)
        for (int64_t b = 0; b < rows; b += kLanes<T>)
          at(g + j * rows + b) = at(s + j * rows + b) * (in.scale * inv[j]);
      if (changed) reweigh(in, threshold, n, rows, g, tile.slopes);
      if (in.group > 1)
        nearest(in, int64_t(classes[0]), n, rows, g);  // groups: no class was skipped
      for (int64_t j = 0; j < n; ++j)
        for (int64_t b = 0; b < rows; b += kLanes<T>) {
          Vector<T> p = exponential(at(g + j * rows + b) - at(top + b)) * at(factor + b);
          if (changed) p *= at(tile.slopes + j * rows + b);
          at(g + j * rows + b) = p;
        }
    }
    for (int64_t b = 0; b < B; ++b) {
      const int64_t j = place_of(in.label[b], classes, n);
      if (j < 0) continue;
      const T p = target_probability<T>(in, state, b);
      g[j * rows + b] = loss_gradient[b] * in.scale * in.slope[b] * (p - 1);
    }
    for (int64_t j = 0; j < n; ++j) {
      Vector<T> sum{};
      for (int64_t b = 0; b < rows; b += kLanes<T>) {
        at(g + j * rows + b) *= inv[j];
        if (in.squares)
          sum += at(g + j * rows + b);
        else
          sum += at(g + j * rows + b) * at(s + j * rows + b);
      }
      tile.along[j] = in.unit_columns || in.squares ? sum_of<T>(sum) * inv[j] * inv[j] : T(0);
    }
    for (int64_t d = 0; d < dims; d += kPanelColumns<T>)
      product<T>(n, B, g, rows, 1, by_dims + d * B, kPanelColumns<T>, tile.gradient + d, dims,
                 false);
    for (int64_t j = 0; j < n; ++j)
      row(int64_t(classes[j]), tile.gradient + j * dims, tile.along[j]);
  };
#pragma omp parallel for num_threads(threads) schedule(static)
  for (int k = 0; k < threads; ++k) {
    const Range groups = share(in.C / in.group, k, threads);
    int32_t classes[kTileClasses];
    int64_t n = 0;
    for (int64_t j = groups.begin * in.group; j < groups.end * in.group; ++j) {
      if (in.group == 1 && state.share[j] * most <= least) {
        none(j);
        continue;
      }
      classes[n++] = int32_t(j);
      if (n == tile_of(in)) {
        compute(tiles[k], classes, n);
        n = 0;
      }
    }
    if (n) compute(tiles[k], classes, n);
  }
}

template <typename T>
void margin_softmax_backward(const MarginSoftmax<T>& in, int threads, char* workspace,
                             const MarginSoftmaxState<T>& state, const T* loss_gradient,
                             T* centres_gradient) {
  const int64_t D = in.D;
  centre_gradients<T>(
      in, threads, workspace, state, loss_gradient,
      [&](int64_t j, const T* gradient, T along) {
        const T* w = in.centres + j * D;
        for (int64_t d = 0; d < D; ++d) centres_gradient[j * D + d] = gradient[d] - along * w[d];
      },
      [&](int64_t j) { __builtin_memset(centres_gradient + j * D, 0, D * sizeof(T)); });
}

// Computes v = momentum v - rate (d w + decay w) and w += v in place. This is safe because no
// thread reads a centre after its step.
template <typename T>
void margin_softmax_update(const MarginSoftmax<T>& in, int threads, char* workspace,
                           const MarginSoftmaxState<T>& state, const CentreStep<T>& step) {
  const int64_t D = in.D;
  Arena arena{workspace};
  T* ones = arena.allocate<T>(in.B);
  for (int64_t b = 0; b < in.B; ++b) ones[b] = 1 / T(in.B);
  centre_gradients<T>(
      in, threads, arena.next, state, ones,
      [&](int64_t j, const T* gradient, T along) {
        T *w = step.centres + j * D, *v = step.velocity + j * D;
        for (int64_t d = 0; d < D; ++d) {
          v[d] = step.momentum * v[d] - step.rate * (gradient[d] + (step.decay - along) * w[d]);
          w[d] += v[d];
        }
      },
      [&](int64_t j) {
        T *w = step.centres + j * D, *v = step.velocity + j * D;
        for (int64_t d = 0; d < D; ++d) {
          v[d] = step.momentum * v[d] - step.rate * step.decay * w[d];
          w[d] += v[d];
        }
      });
}
