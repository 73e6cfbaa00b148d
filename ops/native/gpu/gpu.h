// SPDX-License-Identifier: Apache-2.0
// The operators on the GPU, for float and double. This header needs no CUDA header.
//
// All arrays are on the device. Each function enqueues work on the given stream, does not wait for
// it and allocates nothing. `workspace` is a buffer whose size the function with `bytes` in its
// name returns; its address is a multiple of kAlignment. Results are deterministic: the device
// never chooses the order of a sum. A function returns null, or the reason why it could not enqueue
// the work.
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
constexpr int64_t kMaxWorkspaceBytes = 32 << 20;  // larger only if the smallest chunk needs more

// The margin softmax has the inputs and outputs of the CPU operator (kernels.h; algorithm:
// margin_softmax.cuh). Backward and update read maximum and total; backward also reads pull and
// loss. `share` may be null; no class is skipped on the GPU.
//
// The operator cannot refuse a label outside -1 to C - 1 without a wait for the device. Instead the
// loss and the cosine of that row become NaN, which ends training, and its gradients are zero.

// `chunk` is the number of classes processed at a time; 0 chooses it. `update` asks for the
// workspace of margin_softmax_update.
template <typename T>
int64_t margin_softmax_bytes(int64_t B, int64_t E, int64_t C, bool update, int64_t chunk = 0);

template <typename T>
const char* margin_softmax_forward(const MarginSoftmax<T>& in, const MarginSoftmaxResults<T>& out,
                                   void* workspace, Stream stream, int64_t chunk = 0);

// `gradient` (B,) is the gradient with respect to the B losses. `result.loss` may be null. If the
// losses are given, p - 1 is exact even if the probability p of the target is near 1.
template <typename T>
const char* margin_softmax_backward(const MarginSoftmax<T>& in,
                                    const MarginSoftmaxResults<T>& result, const T* gradient,
                                    T* embedding_gradient, T* centres_gradient, void* workspace,
                                    Stream stream, int64_t chunk = 0);

// An SGD step on the class centres; `gradient` is the gradient with respect to each loss:
//
//   v = momentum v - rate (d centres + weight_decay centres);  centres += v
template <typename T>
struct Step {
  T* centres;     // (C, E) the same array as MarginSoftmax::centres
  T* velocity;    // (C, E)
  const T* rate;  // (1,)
  T momentum, weight_decay, gradient;
};

// Reads maximum, total and, unless it is null, loss of `result`.
template <typename T>
const char* margin_softmax_update(const MarginSoftmax<T>& in, const MarginSoftmaxResults<T>& result,
                                  const Step<T>& step, void* workspace, Stream stream,
                                  int64_t chunk = 0);

// Workspace of prelu_backward, batch_norm_forward and batch_norm_backward.
template <typename T>
int64_t activation_bytes(const Planes& size);

template <typename T>
const char* prelu_forward(const Planes& size, const T* x, const T* slope, T* y, Stream stream);

template <typename T>
const char* prelu_backward(const Planes& size, const T* x, const T* slope, const T* dy, T* dx,
                           T* dslope, void* workspace, Stream stream);

// Batch normalisation in training mode. `inverse` is 1 / sqrt(variance + epsilon). The running
// statistics change by 1 - momentum and use the biased variance, as in Gluon's BatchNorm.
template <typename T>
const char* batch_norm_forward(const Planes& size, const BatchNorm<T>& in, T momentum, T* y,
                               T* mean, T* inverse, T* running_mean, T* running_variance,
                               void* workspace, Stream stream);

// `dslope` is null if in.slope is.
template <typename T>
const char* batch_norm_backward(const Planes& size, const BatchNorm<T>& in, const T* mean,
                                const T* inverse, const T* dy, T* dx, T* dgamma, T* dbeta,
                                T* dslope, void* workspace, Stream stream);

// Sets all values of an array to `value`.
template <typename T>
const char* fill(T* array, int64_t count, T value, Stream stream);

// Returns why a device cannot be used, or null. The library may contain no code for it, or cuBLAS
// may be missing. Does not use other devices and does not change the current device.
const char* fault(int device);

}  // namespace gpu
}  // namespace face
