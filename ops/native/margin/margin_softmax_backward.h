// SPDX-License-Identifier: Apache-2.0
// Margin softmax, backward: the gradients of the class centres, or their step in place.
//
// Included by level.cc, into the namespace of a level.
#pragma once

template <typename T>
INLINE T target_probability(const MarginSoftmax<T>& in, const MarginSoftmaxState<T>& state,
                            int64_t b) {
  return T(exp(in.scale * in.psi[b] - state.maximum[b])) / state.total[b];
}

// Length that the pull of a row's own class has in the gradient of its centre, before the scale.
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

// The gradient of a tile of classes, whose centres are the rows of w.
template <typename T>
struct Tile {
  T *s, *g;      // (kTile, rows)
  T *slopes;     // (kTile, rows) where columns are reweighed, else null
  T *inverse;    // (kTile)
  T *along;      // (kTile) (sum_b g cosine) / |w|^2
  T *gradient;   // (kTile, dims) sum_b g x_b / (|x_b| |w|)
  T *gathered;   // (kTile, D) centres that do not lie side by side
};

// row(class, gradient, along) for every class whose gradient is computed, where d w = gradient -
// along w, and none(class) for every other one.
template <typename T, typename Row, typename None>
INLINE void centre_gradients(const MarginSoftmax<T>& in, int threads, char* working,
                             const MarginSoftmaxState<T>& state, const T* loss_gradient, Row row,
                             None none) {
  const int64_t B = in.B, D = in.D;
  const int64_t rows = round_up(B, kPanel<T>), dims = round_up(D, kPanel<T>);
  Memory memory{working};
  T* inverse = memory.take<T>(rows);
  T* top = memory.take<T>(rows);
  T* factor = memory.take<T>(rows);
  T* threshold = memory.take<T>(rows);
  const bool changed = in.columns.threshold;
  T* packed = memory.take<T>(rows * D);
  T* by_dims = memory.take<T>(dims * B);  // [panel][b][d within the panel]
  for (int64_t b = 0; b < B; ++b) {
    inverse[b] = factor_of(in.unit_rows, in.embedding + b * D, D);
    if (changed) threshold[b] = in.columns.threshold[b];
  }
  pack(in, inverse, packed);
  T largest = 0, most = 0;
  for (int64_t b = 0; b < B; ++b) {
    for (int64_t d = 0; d < D; ++d)
      by_dims[(d / kPanel<T> * B + b) * kPanel<T> + d % kPanel<T>] =
          in.embedding[b * D + d] * inverse[b];
    top[b] = state.maximum[b];
    factor[b] = loss_gradient[b] * in.scale / state.total[b];  // 0 for the padding rows
    const T pull = target_pull<T>(in, state, loss_gradient, b), g = __builtin_fabs(loss_gradient[b]);
    largest = pull > largest ? pull : largest;
    most = g > most ? g : most;
  }
  // A gradient below this part of the largest one is taken for 0. Not where anything is NaN.
  const T least = kNegligible<T> * largest;
  Tile<T> tiles[kMostThreads];
  for (int k = 0; k < threads; ++k)
    tiles[k] = {memory.take<T>(kTile * rows), memory.take<T>(kTile * rows),
                changed ? memory.take<T>(kTile * rows) : nullptr,
                memory.take<T>(kTile), memory.take<T>(kTile), memory.take<T>(kTile * dims),
                memory.take<T>(kTile * D)};
  // The gradients of n classes, in rising order.
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
      if (in.group > 1) nearest(in, int64_t(classes[0]), n, rows, g);  // none is passed over
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
    for (int64_t d = 0; d < dims; d += kPanel<T>)
      product<T>(n, B, g, rows, 1, by_dims + d * B, kPanel<T>, tile.gradient + d, dims, false);
    for (int64_t j = 0; j < n; ++j)
      row(int64_t(classes[j]), tile.gradient + j * dims, tile.along[j]);
  };
#pragma omp parallel for num_threads(threads) schedule(static)
  for (int k = 0; k < threads; ++k) {
    const Range groups = share(in.C / in.group, k, threads);
    int32_t classes[kTile];
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
void margin_softmax_backward(const MarginSoftmax<T>& in, int threads, char* working,
                             const MarginSoftmaxState<T>& state, const T* loss_gradient,
                             T* centres_gradient) {
  const int64_t D = in.D;
  centre_gradients<T>(
      in, threads, working, state, loss_gradient,
      [&](int64_t j, const T* gradient, T along) {
        const T* w = in.centres + j * D;
        for (int64_t d = 0; d < D; ++d)
          centres_gradient[j * D + d] = gradient[d] - along * w[d];
      },
      [&](int64_t j) { __builtin_memset(centres_gradient + j * D, 0, D * sizeof(T)); });
}

// v = momentum v - rate (d w + decay w), w += v: nothing reads a centre after its own step.
template <typename T>
void margin_softmax_update(const MarginSoftmax<T>& in, int threads, char* working,
                           const MarginSoftmaxState<T>& state, const CentreStep<T>& step) {
  const int64_t D = in.D;
  Memory memory{working};
  T* ones = memory.take<T>(in.B);
  for (int64_t b = 0; b < in.B; ++b) ones[b] = 1 / T(in.B);
  centre_gradients<T>(
      in, threads, memory.next, state, ones,
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
