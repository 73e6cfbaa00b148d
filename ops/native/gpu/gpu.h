// SPDX-License-Identifier: Apache-2.0
// The operators on the GPU: one function for each, for float and double, without CUDA's headers.
//
// All arrays are on the device. Work is put on the stream that is passed, nothing waits for it and
// nothing is allocated: `memory` holds as many bytes as the function with `bytes` in its name says
// and begins at a multiple of kAlignment. The results are the same at every call: no sum is taken
// in an order that the device chooses. A function returns null, or a sentence that says why the
// work could not be put on the stream.
#pragma once
#include <cstdint>

#include "../kernels.h"

struct CUstream_st;  // cudaStream_t is a pointer to it

namespace face {
namespace gpu {

using Stream = CUstream_st*;
using face::BatchNorm;
using face::MarginSoftmax;
using face::MarginSoftmaxResults;
using face::Planes;

constexpr int64_t kAlignment = 256;
constexpr int64_t kMostBytes = 32 << 20;  // working memory, unless one row and class need more

// The margin softmax takes and gives what the CPU's does (kernels.h; margin_softmax.cuh says how).
// Backward and update read maximum and total, backward pull and loss too; `share` may be null and
// leaves no class out.
//
// A label that is none of -1 to C - 1 cannot be refused without waiting for the device: its row's
// loss and cosine are NaN, which ends a training, and it moves neither embedding nor centres.

// Classes walked over at a time are chosen where `chunk` is 0. `update` is for the last function.
template <typename T>
int64_t margin_softmax_bytes(int64_t B, int64_t E, int64_t C, bool update, int64_t chunk = 0);

template <typename T>
const char* margin_softmax_forward(const MarginSoftmax<T>& in, const MarginSoftmaxResults<T>& out,
                                   void* memory, Stream stream, int64_t chunk = 0);

// `gradient` (B,) is that of the losses. `result.loss` may be null: it makes p - 1 exact where p
// is near 1.
template <typename T>
const char* margin_softmax_backward(const MarginSoftmax<T>& in,
                                    const MarginSoftmaxResults<T>& result, const T* gradient,
                                    T* embedding_gradient, T* centres_gradient, void* memory,
                                    Stream stream, int64_t chunk = 0);

// A step of SGD on the class centres, each row's loss having the gradient `gradient`:
//
//   v = momentum v - rate (d centres + weight_decay centres);  centres += v
template <typename T>
struct Step {
  T* centres;     // (C, E) the array that MarginSoftmax::centres names
  T* velocity;    // (C, E)
  const T* rate;  // (1,)
  T momentum, weight_decay, gradient;
};

// Reads maximum, total and, unless null, loss of `result`.
template <typename T>
const char* margin_softmax_update(const MarginSoftmax<T>& in, const MarginSoftmaxResults<T>& result,
                                  const Step<T>& step, void* memory, Stream stream,
                                  int64_t chunk = 0);

// Working memory of prelu_backward and of both functions of batch normalisation.
template <typename T>
int64_t activation_bytes(const Planes& size);

template <typename T>
const char* prelu_forward(const Planes& size, const T* x, const T* slope, T* y, Stream stream);

template <typename T>
const char* prelu_backward(const Planes& size, const T* x, const T* slope, const T* dy, T* dx,
                           T* dslope, void* memory, Stream stream);

// Of training: `inverse` is 1 / sqrt(variance + epsilon); the running statistics move on by
// 1 - momentum, with the variance divided by the count, as Gluon's BatchNorm does.
template <typename T>
const char* batch_norm_forward(const Planes& size, const BatchNorm<T>& in, T momentum, T* y,
                               T* mean, T* inverse, T* running_mean, T* running_variance,
                               void* memory, Stream stream);

// `dslope` is null where in.slope is.
template <typename T>
const char* batch_norm_backward(const Planes& size, const BatchNorm<T>& in, const T* mean,
                                const T* inverse, const T* dy, T* dx, T* dgamma, T* dbeta,
                                T* dslope, void* memory, Stream stream);

// All values of an array to `value`, such as the gradients of inputs that have none.
template <typename T>
const char* fill(T* array, int64_t count, T value, Stream stream);

// Why a device cannot be used, or null: it may be one for which no code was compiled, or cuBLAS may
// be missing. No other device is touched, and the current device stays what it was.
const char* fault(int device);

}  // namespace gpu
}  // namespace face
