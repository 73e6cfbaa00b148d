// SPDX-License-Identifier: Apache-2.0
// PReLU, batch normalisation, and filling arrays: which kernels run over which parts.
#include "activation.cuh"

#include <thread>

#include "blas.h"

namespace face {
namespace gpu {
namespace {

constexpr int V = 4;  // values of a pack, where planes and arrays allow packs

// The same on every device, since the order of the sums hangs on it: some eight values for each
// thread of a block, at most as many parts as a warp joins in two steps.
Parts parts_of(const Planes& size) {
  const int64_t wanted = divide_up(size.N * size.P, 8 * V * kThreads);
  return {size, wanted < 2 * kWarp ? wanted : 2 * kWarp};
}

// Whether planes consist of whole packs and the arrays begin at one.
template <typename T, typename... A>
bool in_packs(const Planes& size, const A*... arrays) {
  bool whole = size.P % V == 0;
  for (const void* array : {static_cast<const void*>(arrays)...})
    whole = whole && reinterpret_cast<uintptr_t>(array) % sizeof(Pack<T, V>) == 0;
  return whole;
}

template <typename... P, typename... A>
void launch_on(bool packs, void (*packed)(P...), void (*single)(P...), const Parts& of,
               Stream stream, A... arguments) {
  launch(packs ? packed : single, of.size.C * of.parts, kThreads, stream, of, arguments...);
}

}  // namespace

template <typename T>
int64_t activation_bytes(const Planes& size) {
  return size.C * parts_of(size).parts * int64_t(sizeof(Triple<T>));
}

template <typename T>
const char* prelu_forward(const Planes& size, const T* x, const T* slope, T* y, Stream stream) {
  launch_on(in_packs<T>(size, x, y), prelu_values<T, V>, prelu_values<T, 1>, parts_of(size),
            stream, x, slope, y);
  return launch_fault();
}

template <typename T>
const char* prelu_backward(const Planes& size, const T* x, const T* slope, const T* dy, T* dx,
                           T* dslope, void* memory, Stream stream) {
  const Parts of = parts_of(size);
  T* partial = static_cast<T*>(memory);
  launch_on(in_packs<T>(size, x, dy, dx), prelu_gradients<T, V>, prelu_gradients<T, 1>, of, stream,
            x, slope, dy, dx, partial);
  launch(join_slopes<T>, divide_up(size.C, kWarps), kThreads, stream, of, partial, dslope);
  return launch_fault();
}

template <typename T>
const char* batch_norm_forward(const Planes& size, const BatchNorm<T>& in, T momentum, T* y,
                               T* mean, T* inverse, T* running_mean, T* running_variance,
                               void* memory, Stream stream) {
  const Parts of = parts_of(size);
  Triple<T>* partial = static_cast<Triple<T>*>(memory);
  const bool packs = in_packs<T>(size, in.x, y);
  launch_on(packs, part_moments<T, V>, part_moments<T, 1>, of, stream, in.x, partial);
  const Statistics<T> out{mean, inverse, running_mean, running_variance, momentum};
  launch_on(packs, normalise<T, V>, normalise<T, 1>, of, stream, in, partial, y, out);
  return launch_fault();
}

template <typename T>
const char* batch_norm_backward(const Planes& size, const BatchNorm<T>& in, const T* mean,
                                const T* inverse, const T* dy, T* dx, T* dgamma, T* dbeta,
                                T* dslope, void* memory, Stream stream) {
  const Parts of = parts_of(size);
  Triple<T>* partial = static_cast<Triple<T>*>(memory);
  const bool packs = in_packs<T>(size, in.x, dy, dx);
  launch_on(packs, part_gradients<T, V>, part_gradients<T, 1>, of, stream, in, mean, inverse, dy,
            partial);
  const NormGradients<T> out{dx, dgamma, dbeta, dslope};
  launch_on(packs, norm_gradients<T, V>, norm_gradients<T, 1>, of, stream, in, mean, inverse, dy,
            partial, out);
  return launch_fault();
}

template <typename T>
const char* fill(T* array, int64_t count, T value, Stream stream) {
  if (count > 0)
    launch(fill_values<T>, divide_up(count, kThreads), kThreads, stream, array, count, value);
  return launch_fault();
}

const char* fault(int device) {
  cudaError_t error = cudaSuccess;
  // On a thread of its own, since every thread has its own current device: the attributes of a
  // kernel open a context on it, of some hundred MB. Setting the device of the caller and setting
  // it back would do the same to the old one from CUDA 12 on, GPU 0 on every rank.
  std::thread asks([&] {
    cudaFuncAttributes attributes;
    error = cudaSetDevice(device);
    if (error == cudaSuccess) error = cudaFuncGetAttributes(&attributes, fill_values<float>);
  });
  asks.join();
  return error == cudaSuccess ? blas_fault() : cudaGetErrorString(error);
}

#define FACE_INSTANTIATE(T)                                                                     \
  template int64_t activation_bytes<T>(const Planes&);                                          \
  template const char* prelu_forward<T>(const Planes&, const T*, const T*, T*, Stream);         \
  template const char* prelu_backward<T>(const Planes&, const T*, const T*, const T*, T*, T*,   \
                                         void*, Stream);                                        \
  template const char* batch_norm_forward<T>(const Planes&, const BatchNorm<T>&, T, T*, T*, T*, \
                                             T*, T*, void*, Stream);                            \
  template const char* batch_norm_backward<T>(const Planes&, const BatchNorm<T>&, const T*,     \
                                              const T*, const T*, T*, T*, T*, T*, void*,        \
                                              Stream);                                          \
  template const char* fill<T>(T*, int64_t, T, Stream);
FACE_INSTANTIATE(float)
FACE_INSTANTIATE(double)

}  // namespace gpu
}  // namespace face
