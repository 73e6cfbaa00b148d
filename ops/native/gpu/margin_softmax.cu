// SPDX-License-Identifier: Apache-2.0
// The margin softmax: which kernels and products run over which chunks of classes.
#include "blas.h"
#include "margin_gradient.cuh"

namespace face {
namespace gpu {
namespace {

constexpr int64_t kMostClasses = 65536, kFewestClasses = 256;  // of a chunk chosen here

// The working memory, laid out; at null for its size.
template <typename T>
struct Working {
  char* blas;
  Rows<T> rows;   // forward keeps 1 / |x| and the sum over other classes in the two by row
  T* scores;      // (B, stride)
  T* inverse;     // (stride,)
  T* maxima;      // (B, segments)
  T* sums;        // (B, segments)
  T* pulled;      // (stride, E), of the step alone
  int64_t stride, segments, bytes;

  Working(void* memory, int64_t B, int64_t E, bool update, int64_t chunk)
      : stride(round_up(chunk, kWarp)), segments(divide_up(chunk, kSegment)) {
    Memory pieces{reinterpret_cast<uintptr_t>(memory)};
    blas = pieces.take<char>(kBlasBytes);
    rows = {pieces.take<T>(B * E), pieces.take<T>(B), pieces.take<T>(B)};
    scores = pieces.take<T>(B * stride);
    inverse = pieces.take<T>(stride);
    maxima = pieces.take<T>(B * segments);
    sums = pieces.take<T>(B * segments);
    pulled = update ? pieces.take<T>(stride * E) : nullptr;
    bytes = int64_t(pieces.next - reinterpret_cast<uintptr_t>(memory));
  }
};

// As many classes as the memory allows, in chunks of nearly one size.
template <typename T>
int64_t chosen(int64_t B, int64_t E, int64_t C, bool update, int64_t chunk) {
  if (chunk > 0) return chunk < C ? chunk : C;
  int64_t most = C < kMostClasses ? C : kMostClasses;
  while (most > kFewestClasses && Working<T>(nullptr, B, E, update, most).bytes > kMostBytes)
    most -= most / 64 < kWarp ? kWarp : most / 64;
  return divide_up(C, divide_up(C, most));
}

// f(scores of the chunk, its centres) -> fault, for each chunk, after its scores and lengths.
template <typename T, typename F>
const char* over_chunks(const MarginSoftmax<T>& in, const Working<T>& working, int64_t chunk,
                        T* share, Stream stream, F f) {
  for (int64_t first = 0; first < in.C; first += chunk) {
    const int64_t n = in.C - first < chunk ? in.C - first : chunk;
    const T* centres = in.centres + first * in.D;
    launch(class_lengths<T>, divide_up(n, kWarps), kThreads, stream, centres, n, in.D,
           working.inverse, share ? share + first : nullptr);
    const Matrix rows{in.B, in.D, in.D, false}, classes{in.D, n, in.D, true};
    if (const char* why = product(working.blas, stream, working.rows.unit, rows, centres, classes,
                                  T(0), working.scores, working.stride))
      return why;
    const Scores<T> scores{working.scores, working.stride,  first,
                           n,              working.inverse, divide_up(n, kSegment)};
    if (const char* why = f(scores, centres)) return why;
  }
  return launch_fault();
}

// Gradients of the cosines of a chunk, and their product with the rows: (n, E).
template <typename T>
const char* pull_classes(const MarginSoftmax<T>& in, const MarginSoftmaxResults<T>& result,
                         const Working<T>& working, const Scores<T>& scores, Stream stream,
                         T* pulled) {
  launch(score_gradients<T>, in.B * scores.segments, kThreads, stream, in, result.maximum,
         working.rows, scores);
  const Matrix classes{scores.n, in.B, scores.stride, true}, rows{in.B, in.D, in.D, false};
  return product(working.blas, stream, scores.values, classes, working.rows.unit, rows, T(0),
                 pulled, in.D);
}

}  // namespace

template <typename T>
int64_t margin_softmax_bytes(int64_t B, int64_t E, int64_t C, bool update, int64_t chunk) {
  return Working<T>(nullptr, B, E, update, chosen<T>(B, E, C, update, chunk)).bytes;
}

template <typename T>
const char* margin_softmax_forward(const MarginSoftmax<T>& in, const MarginSoftmaxResults<T>& out,
                                   void* memory, Stream stream, int64_t chunk) {
  chunk = chosen<T>(in.B, in.D, in.C, false, chunk);
  const Working<T> working(memory, in.B, in.D, false, chunk);
  T *inverse = working.rows.factor, *rest = working.rows.target;
  launch(begin_rows<T>, divide_up(in.B, kWarps), kThreads, stream, in, out, working.rows.unit,
         inverse, rest);
  const char* why = over_chunks(
      in, working, chunk, out.share, stream, [&](const Scores<T>& scores, const T* centres) {
        launch(row_maxima<T>, in.B * scores.segments, kThreads, stream, in, scores,
               working.maxima);
        launch(row_weights<T>, in.B * scores.segments, kThreads, stream, in, out, scores,
               working.maxima, working.sums);
        launch(join_rows<T>, in.B, kThreads, stream, in, out, scores.segments, working.maxima,
               working.sums, rest);
        const Matrix weights{in.B, scores.n, scores.stride, false};
        const Matrix classes{scores.n, in.D, in.D, false};
        return product(working.blas, stream, scores.values, weights, centres, classes, T(1),
                       out.pull, in.D);
      });
  if (why) return why;
  launch(end_rows<T>, divide_up(in.B, kWarps), kThreads, stream, in, out, working.rows.unit,
         inverse, rest);
  return launch_fault();
}

template <typename T>
const char* margin_softmax_backward(const MarginSoftmax<T>& in,
                                    const MarginSoftmaxResults<T>& result, const T* gradient,
                                    T* embedding_gradient, T* centres_gradient, void* memory,
                                    Stream stream, int64_t chunk) {
  chunk = chosen<T>(in.B, in.D, in.C, false, chunk);
  const Working<T> working(memory, in.B, in.D, false, chunk);
  launch(begin_gradient<T>, divide_up(in.B, kWarps), kThreads, stream, in, result, gradient, T(0),
         working.rows, embedding_gradient);
  return over_chunks(
      in, working, chunk, static_cast<T*>(nullptr), stream,
      [&](const Scores<T>& scores, const T* centres) -> const char* {
        T* gradients = centres_gradient + scores.first * in.D;
        if (const char* why = pull_classes(in, result, working, scores, stream, gradients))
          return why;
        launch(class_gradients<T>, divide_up(scores.n, kWarps), kThreads, stream, centres,
               scores.inverse, scores.n, in.D, gradients);
        return nullptr;
      });
}

// A chunk's scores, and all that comes of them, are of its old centres: no other chunk reads them.
template <typename T>
const char* margin_softmax_update(const MarginSoftmax<T>& in, const MarginSoftmaxResults<T>& result,
                                  const Step<T>& step, void* memory, Stream stream,
                                  int64_t chunk) {
  chunk = chosen<T>(in.B, in.D, in.C, true, chunk);
  const Working<T> working(memory, in.B, in.D, true, chunk);
  launch(begin_gradient<T>, divide_up(in.B, kWarps), kThreads, stream, in, result,
         static_cast<const T*>(nullptr), step.gradient, working.rows, static_cast<T*>(nullptr));
  return over_chunks(
      in, working, chunk, static_cast<T*>(nullptr), stream,
      [&](const Scores<T>& scores, const T*) -> const char* {
        if (const char* why = pull_classes(in, result, working, scores, stream, working.pulled))
          return why;
        launch(class_steps<T>, divide_up(scores.n, kWarps), kThreads, stream, step, scores.first,
               scores.inverse, scores.n, in.D, working.pulled);
        return nullptr;
      });
}

#define FACE_INSTANTIATE(T)                                                                      \
  template int64_t margin_softmax_bytes<T>(int64_t, int64_t, int64_t, bool, int64_t);            \
  template const char* margin_softmax_forward<T>(                                                \
      const MarginSoftmax<T>&, const MarginSoftmaxResults<T>&, void*, Stream, int64_t);           \
  template const char* margin_softmax_backward<T>(const MarginSoftmax<T>&,                       \
                                                  const MarginSoftmaxResults<T>&, const T*, T*,   \
                                                  T*, void*, Stream, int64_t);                   \
  template const char* margin_softmax_update<T>(const MarginSoftmax<T>&,                         \
                                                const MarginSoftmaxResults<T>&, const Step<T>&,   \
                                                void*, Stream, int64_t);
FACE_INSTANTIATE(float)
FACE_INSTANTIATE(double)

}  // namespace gpu
}  // namespace face
