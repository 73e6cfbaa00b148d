// SPDX-License-Identifier: Apache-2.0
// C interface of the GPU operators for ctypes. `width` is the size of a value in bytes (4: float,
// 8: double). Arrays are device pointers in the order of the structures in gpu.h. Tests and
// benchmarks/gpu_operators.py link this file; the library for MXNet does not contain it.
#include "gpu.h"

using namespace face::gpu;  // NOLINT: this file wraps only that namespace

namespace {

using Arrays = void* const*;

template <typename T>
T* at(Arrays arrays, int i) {
  return static_cast<T*>(arrays[i]);
}

// a: embedding, centres, label, psi, slope
template <typename T>
MarginSoftmax<T> inputs(const int64_t* size, Arrays a, double scale) {
  return {size[0],     size[1],     size[2],     at<T>(a, 0), at<T>(a, 1),
          at<T>(a, 2), at<T>(a, 3), at<T>(a, 4), T(scale)};
}

// a: loss, cosine, maximum, total, pull, share
template <typename T>
MarginSoftmaxResults<T> result(Arrays a) {
  return {at<T>(a, 0), at<T>(a, 1), at<T>(a, 2), at<T>(a, 3), at<T>(a, 4), at<T>(a, 5)};
}

// a: x, gamma, beta, slope
template <typename T>
BatchNorm<T> norm(Arrays a, double epsilon) {
  return {at<T>(a, 0), at<T>(a, 1), at<T>(a, 2), at<T>(a, 3), T(epsilon)};
}

Planes planes(const int64_t* size) { return {size[0], size[1], size[2]}; }
Stream on(void* stream) { return static_cast<Stream>(stream); }

}  // namespace

// Calls f<float> or f<double>.
#define BY_WIDTH(f, ...) (width == 8 ? f<double>(__VA_ARGS__) : f<float>(__VA_ARGS__))

namespace {

template <typename T>
const char* forward(const int64_t* size, Arrays in, Arrays out, double scale, void* workspace,
                    void* stream, int64_t chunk) {
  return margin_softmax_forward(inputs<T>(size, in, scale), result<T>(out), workspace, on(stream),
                                chunk);
}

// out: d embedding, d centres
template <typename T>
const char* backward(const int64_t* size, Arrays in, Arrays results, void* gradient, Arrays out,
                     double scale, void* workspace, void* stream, int64_t chunk) {
  return margin_softmax_backward(inputs<T>(size, in, scale), result<T>(results),
                                 static_cast<const T*>(gradient), at<T>(out, 0), at<T>(out, 1),
                                 workspace, on(stream), chunk);
}

// step: centres, velocity, rate; numbers: momentum, weight decay, gradient
template <typename T>
const char* update(const int64_t* size, Arrays in, Arrays results, Arrays step,
                   const double* numbers, double scale, void* workspace, void* stream,
                   int64_t chunk) {
  const Step<T> change{at<T>(step, 0), at<T>(step, 1), at<T>(step, 2),
                       T(numbers[0]),  T(numbers[1]),  T(numbers[2])};
  return margin_softmax_update(inputs<T>(size, in, scale), result<T>(results), change, workspace,
                               on(stream), chunk);
}

// arrays: x, slope, y
template <typename T>
const char* prelu(const int64_t* size, Arrays a, void* stream) {
  return prelu_forward<T>(planes(size), at<T>(a, 0), at<T>(a, 1), at<T>(a, 2), on(stream));
}

// arrays: x, slope, dy, dx, dslope
template <typename T>
const char* prelu_gradient(const int64_t* size, Arrays a, void* workspace, void* stream) {
  return prelu_backward<T>(planes(size), at<T>(a, 0), at<T>(a, 1), at<T>(a, 2), at<T>(a, 3),
                           at<T>(a, 4), workspace, on(stream));
}

// out: y, mean, inverse, running mean, running variance
template <typename T>
const char* batch_norm(const int64_t* size, Arrays in, double epsilon, double momentum, Arrays out,
                       void* workspace, void* stream) {
  return batch_norm_forward<T>(planes(size), norm<T>(in, epsilon), T(momentum), at<T>(out, 0),
                               at<T>(out, 1), at<T>(out, 2), at<T>(out, 3), at<T>(out, 4),
                               workspace, on(stream));
}

// given: mean, inverse, dy; out: dx, dgamma, dbeta, dslope
template <typename T>
const char* batch_norm_gradient(const int64_t* size, Arrays in, double epsilon, Arrays given,
                                Arrays out, void* workspace, void* stream) {
  return batch_norm_backward<T>(planes(size), norm<T>(in, epsilon), at<T>(given, 0),
                                at<T>(given, 1), at<T>(given, 2), at<T>(out, 0), at<T>(out, 1),
                                at<T>(out, 2), at<T>(out, 3), workspace, on(stream));
}

}  // namespace

extern "C" {

const char* face_gpu_fault(int device) { return fault(device); }

int64_t face_gpu_margin_softmax_bytes(int width, const int64_t* size, int update, int64_t chunk) {
  return BY_WIDTH(margin_softmax_bytes, size[0], size[1], size[2], update != 0, chunk);
}

const char* face_gpu_margin_softmax_forward(int width, const int64_t* size, Arrays in, Arrays out,
                                            double scale, void* workspace, void* stream,
                                            int64_t chunk) {
  return BY_WIDTH(forward, size, in, out, scale, workspace, stream, chunk);
}

const char* face_gpu_margin_softmax_backward(int width, const int64_t* size, Arrays in,
                                             Arrays results, void* gradient, Arrays out,
                                             double scale, void* workspace, void* stream,
                                             int64_t chunk) {
  return BY_WIDTH(backward, size, in, results, gradient, out, scale, workspace, stream, chunk);
}

const char* face_gpu_margin_softmax_update(int width, const int64_t* size, Arrays in,
                                           Arrays results, Arrays step, const double* numbers,
                                           double scale, void* workspace, void* stream,
                                           int64_t chunk) {
  return BY_WIDTH(update, size, in, results, step, numbers, scale, workspace, stream, chunk);
}

int64_t face_gpu_activation_bytes(int width, const int64_t* size) {
  return BY_WIDTH(activation_bytes, planes(size));
}

const char* face_gpu_prelu_forward(int width, const int64_t* size, Arrays arrays, void* stream) {
  return BY_WIDTH(prelu, size, arrays, stream);
}

const char* face_gpu_prelu_backward(int width, const int64_t* size, Arrays arrays, void* workspace,
                                    void* stream) {
  return BY_WIDTH(prelu_gradient, size, arrays, workspace, stream);
}

const char* face_gpu_batch_norm_forward(int width, const int64_t* size, Arrays in, double epsilon,
                                        double momentum, Arrays out, void* workspace,
                                        void* stream) {
  return BY_WIDTH(batch_norm, size, in, epsilon, momentum, out, workspace, stream);
}

const char* face_gpu_batch_norm_backward(int width, const int64_t* size, Arrays in, double epsilon,
                                         Arrays given, Arrays out, void* workspace, void* stream) {
  return BY_WIDTH(batch_norm_gradient, size, in, epsilon, given, out, workspace, stream);
}

const char* face_gpu_fill(int width, void* array, int64_t count, double value, void* stream) {
  return width == 8 ? fill(static_cast<double*>(array), count, value, on(stream))
                    : fill(static_cast<float*>(array), count, float(value), on(stream));
}

}  // extern "C"
