// SPDX-License-Identifier: Apache-2.0
// Host functions of the margin softmax: kernels and matrix products for each chunk of classes.
#include "blas.h"
#include "margin_gradient.cuh"

namespace face {
namespace gpu {
namespace {

constexpr int64_t kMaxChunkClasses = 65536, kMinChunkClasses = 256;

// Layout of the workspace; constructed at null it gives the size.
template <typename T>
struct Workspace {
  char* blas;
  Rows<T> rows;  // forward stores 1 / |x| in `factor` and the sum over non-targets in `target`
  T* scores;     // (B, stride)
  T* inverse;    // (stride,)
  T* maxima;     // (B, segments)
  T* sums;       // (B, segments)
  T* pulled;     // (stride, E) for the SGD step, else null
  int64_t stride, segments, bytes;

  Workspace(void* memory, int64_t B, int64_t E, bool update, int64_t chunk)
      : stride(round_up(chunk, kWarpThreads)), segments(divide_up(chunk, kSegmentColumns)) {
    Arena arena{reinterpret_cast<uintptr_t>(memory)};
    blas = arena.allocate<char>(kBlasBytes);
    rows = {arena.allocate<T>(B * E), arena.allocate<T>(B), arena.allocate<T>(B)};
    scores = arena.allocate<T>(B * stride);
    inverse = arena.allocate<T>(stride);
    maxima = arena.allocate<T>(B * segments);
    sums = arena.allocate<T>(B * segments);
    pulled = update ? arena.allocate<T>(stride * E) : nullptr;
    bytes = int64_t(arena.next - reinterpret_cast<uintptr_t>(memory));
  }
};

// Returns the number of classes of a chunk: as many as fit into the workspace, in chunks of nearly
// equal size.
template <typename T>
int64_t chunk_classes(int64_t B, int64_t E, int64_t C, bool update, int64_t chunk) {
  if (chunk > 0) return chunk < C ? chunk : C;
  int64_t most = C < kMaxChunkClasses ? C : kMaxChunkClasses;
  while (most > kMinChunkClasses &&
         Workspace<T>(nullptr, B, E, update, most).bytes > kMaxWorkspaceBytes)
    most -= most / 64 < kWarpThreads ? kWarpThreads : most / 64;
  return divide_up(C, divide_up(C, most));
}

// Computes scores and lengths of each chunk, then calls f(scores, centres). Stops at the first
// error and returns it.
template <typename T, typename F>
const char* over_chunks(const MarginSoftmax<T>& in, const Workspace<T>& layout, int64_t chunk,
                        T* share, Stream stream, F f) {
  for (int64_t first = 0; first < in.C; first += chunk) {
    const int64_t n = in.C - first < chunk ? in.C - first : chunk;
    const T* centres = in.centres + first * in.D;
    launch(class_lengths<T>, divide_up(n, kBlockWarps), kBlockThreads, stream, centres, n, in.D,
           layout.inverse, share ? share + first : nullptr);
    const Matrix rows{in.B, in.D, in.D, false}, classes{in.D, n, in.D, true};
    if (const char* why = product(layout.blas, stream, layout.rows.unit, rows, centres, classes,
                                  T(0), layout.scores, layout.stride))
      return why;
    const Scores<T> scores{
        layout.scores, layout.stride, first, n, layout.inverse, divide_up(n, kSegmentColumns)};
    if (const char* why = f(scores, centres)) return why;
  }
  return launch_fault();
}

// Computes the gradients of a chunk's cosines and their product with the rows, (n, E).
template <typename T>
const char* pull_classes(const MarginSoftmax<T>& in, const MarginSoftmaxResults<T>& result,
                         const Workspace<T>& layout, const Scores<T>& scores, Stream stream,
                         T* pulled) {
  launch(score_gradients<T>, in.B * scores.segments, kBlockThreads, stream, in, result.maximum,
         layout.rows, scores);
  const Matrix classes{scores.n, in.B, scores.stride, true}, rows{in.B, in.D, in.D, false};
  return product(layout.blas, stream, scores.values, classes, layout.rows.unit, rows, T(0), pulled,
                 in.D);
}

}  // namespace

template <typename T>
int64_t margin_softmax_bytes(int64_t B, int64_t E, int64_t C, bool update, int64_t chunk) {
  return Workspace<T>(nullptr, B, E, update, chunk_classes<T>(B, E, C, update, chunk)).bytes;
}

template <typename T>
const char* margin_softmax_forward(const MarginSoftmax<T>& in, const MarginSoftmaxResults<T>& out,
                                   void* workspace, Stream stream, int64_t chunk) {
  chunk = chunk_classes<T>(in.B, in.D, in.C, false, chunk);
  const Workspace<T> layout(workspace, in.B, in.D, false, chunk);
  T *inverse = layout.rows.factor, *rest = layout.rows.target;
  launch(begin_rows<T>, divide_up(in.B, kBlockWarps), kBlockThreads, stream, in, out,
         layout.rows.unit, inverse, rest);
  const char* why = over_chunks(in, layout, chunk, out.share, stream,
                                [&](const Scores<T>& scores, const T* centres) {
                                  launch(row_maxima<T>, in.B * scores.segments, kBlockThreads,
                                         stream, in, scores, layout.maxima);
                                  launch(row_weights<T>, in.B * scores.segments, kBlockThreads,
                                         stream, in, out, scores, layout.maxima, layout.sums);
                                  launch(join_rows<T>, in.B, kBlockThreads, stream, in, out,
                                         scores.segments, layout.maxima, layout.sums, rest);
                                  const Matrix weights{in.B, scores.n, scores.stride, false};
                                  const Matrix classes{scores.n, in.D, in.D, false};
                                  return product(layout.blas, stream, scores.values, weights,
                                                 centres, classes, T(1), out.pull, in.D);
                                });
  if (why) return why;
  launch(end_rows<T>, divide_up(in.B, kBlockWarps), kBlockThreads, stream, in, out,
         layout.rows.unit, inverse, rest);
  return launch_fault();
}

template <typename T>
const char* margin_softmax_backward(const MarginSoftmax<T>& in,
                                    const MarginSoftmaxResults<T>& result, const T* gradient,
                                    T* embedding_gradient, T* centres_gradient, void* workspace,
                                    Stream stream, int64_t chunk) {
  chunk = chunk_classes<T>(in.B, in.D, in.C, false, chunk);
  const Workspace<T> layout(workspace, in.B, in.D, false, chunk);
  launch(begin_gradient<T>, divide_up(in.B, kBlockWarps), kBlockThreads, stream, in, result,
         gradient, T(0), layout.rows, embedding_gradient);
  return over_chunks(
      in, layout, chunk, static_cast<T*>(nullptr), stream,
      [&](const Scores<T>& scores, const T* centres) -> const char* {
        T* gradients = centres_gradient + scores.first * in.D;
        if (const char* why = pull_classes(in, result, layout, scores, stream, gradients))
          return why;
        launch(class_gradients<T>, divide_up(scores.n, kBlockWarps), kBlockThreads, stream, centres,
               scores.inverse, scores.n, in.D, gradients);
        return nullptr;
      });
}

// The update in place is safe: scores and gradients of a chunk depend only on its own old centres.
template <typename T>
const char* margin_softmax_update(const MarginSoftmax<T>& in, const MarginSoftmaxResults<T>& result,
                                  const Step<T>& step, void* workspace, Stream stream,
                                  int64_t chunk) {
  chunk = chunk_classes<T>(in.B, in.D, in.C, true, chunk);
  const Workspace<T> layout(workspace, in.B, in.D, true, chunk);
  launch(begin_gradient<T>, divide_up(in.B, kBlockWarps), kBlockThreads, stream, in, result,
         static_cast<const T*>(nullptr), step.gradient, layout.rows, static_cast<T*>(nullptr));
  return over_chunks(
      in, layout, chunk, static_cast<T*>(nullptr), stream,
      [&](const Scores<T>& scores, const T*) -> const char* {
        if (const char* why = pull_classes(in, result, layout, scores, stream, layout.pulled))
          return why;
        launch(class_steps<T>, divide_up(scores.n, kBlockWarps), kBlockThreads, stream, step,
               scores.first, scores.inverse, scores.n, in.D, layout.pulled);
        return nullptr;
      });
}

#define FACE_INSTANTIATE(T)                                                                     \
  template int64_t margin_softmax_bytes<T>(int64_t, int64_t, int64_t, bool, int64_t);           \
  template const char* margin_softmax_forward<T>(                                               \
      const MarginSoftmax<T>&, const MarginSoftmaxResults<T>&, void*, Stream, int64_t);         \
  template const char* margin_softmax_backward<T>(const MarginSoftmax<T>&,                      \
                                                  const MarginSoftmaxResults<T>&, const T*, T*, \
                                                  T*, void*, Stream, int64_t);                  \
  template const char* margin_softmax_update<T>(const MarginSoftmax<T>&,                        \
                                                const MarginSoftmaxResults<T>&, const Step<T>&, \
                                                void*, Stream, int64_t);
FACE_INSTANTIATE(float)
FACE_INSTANTIATE(double)

}  // namespace gpu
}  // namespace face
