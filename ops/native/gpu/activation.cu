// SPDX-License-Identifier: Apache-2.0
// Host functions that launch the kernels of PReLU, batch normalisation and fill.
#include "activation.cuh"

#include <thread>

#include "blas.h"

namespace face {
namespace gpu {
namespace {

constexpr int V = 4;  // values of a pack, if plane sizes and addresses allow packs

// Chooses the number of parts: about eight packs per thread of a block, at most as many parts as a
// warp reduces in two steps. It is equal on all devices, because the order of the sums depends on
// it.
Parts parts_of(const Planes& size) {
  const int64_t wanted = divide_up(size.N * size.P, 8 * V * kBlockThreads);
  return {size, wanted < 2 * kWarpThreads ? wanted : 2 * kWarpThreads};
}

// Returns whether planes consist of whole packs and all arrays are aligned to a pack.
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
  launch(packs ? packed : single, of.size.C * of.parts, kBlockThreads, stream, of, arguments...);
}

}  // namespace

template <typename T>
int64_t activation_bytes(const Planes& size) {
  return size.C * parts_of(size).parts * int64_t(sizeof(Triple<T>));
}

template <typename T>
const char* prelu_forward(const Planes& size, const T* x, const T* slope, T* y, Stream stream) {
  launch_on(in_packs<T>(size, x, y), prelu_values<T, V>, prelu_values<T, 1>, parts_of(size), stream,
            x, slope, y);
  return launch_fault();
}

template <typename T>
const char* prelu_backward(const Planes& size, const T* x, const T* slope, const T* dy, T* dx,
                           T* dslope, void* workspace, Stream stream) {
  const Parts of = parts_of(size);
  T* partial = static_cast<T*>(workspace);
  launch_on(in_packs<T>(size, x, dy, dx), prelu_gradients<T, V>, prelu_gradients<T, 1>, of, stream,
            x, slope, dy, dx, partial);
  launch(join_slopes<T>, divide_up(size.C, kBlockWarps), kBlockThreads, stream, of, partial,
         dslope);
  return launch_fault();
}

template <typename T>
const char* batch_norm_forward(const Planes& size, const BatchNorm<T>& in, T momentum, T* y,
                               T* mean, T* inverse, T* running_mean, T* running_variance,
                               void* workspace, Stream stream) {
  const Parts of = parts_of(size);
  Triple<T>* partial = static_cast<Triple<T>*>(workspace);
  const bool packs = in_packs<T>(size, in.x, y);
  launch_on(packs, part_moments<T, V>, part_moments<T, 1>, of, stream, in.x, partial);
  const Statistics<T> out{mean, inverse, running_mean, running_variance, momentum};
  launch_on(packs, normalise<T, V>, normalise<T, 1>, of, stream, in, partial, y, out);
  return launch_fault();
}

template <typename T>
const char* batch_norm_backward(const Planes& size, const BatchNorm<T>& in, const T* mean,
                                const T* inverse, const T* dy, T* dx, T* dgamma, T* dbeta,
                                T* dslope, void* workspace, Stream stream) {
  const Parts of = parts_of(size);
  Triple<T>* partial = static_cast<Triple<T>*>(workspace);
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
    launch(fill_values<T>, divide_up(count, kBlockThreads), kBlockThreads, stream, array, count,
           value);
  return launch_fault();
}

const char* fault(int device) {
  cudaError_t error = cudaSuccess;
  // cudaFuncGetAttributes creates a context of some hundred MB on the current device. Use a new
  // thread, because every thread has its own current device. To restore the caller's device instead
  // would create a second context from CUDA 12 on: on GPU 0, for every rank.
  std::thread query([&] {
    cudaFuncAttributes attributes;
    error = cudaSetDevice(device);
    if (error == cudaSuccess) error = cudaFuncGetAttributes(&attributes, fill_values<float>);
  });
  query.join();
  return error == cudaSuccess ? blas_fault() : cudaGetErrorString(error);
}

#define FACE_INSTANTIATE(T)                                                                       \
  template int64_t activation_bytes<T>(const Planes&);                                            \
  template const char* prelu_forward<T>(const Planes&, const T*, const T*, T*, Stream);           \
  template const char* prelu_backward<T>(const Planes&, const T*, const T*, const T*, T*, T*,     \
                                         void*, Stream);                                          \
  template const char* batch_norm_forward<T>(const Planes&, const BatchNorm<T>&, T, T*, T*, T*,   \
                                             T*, T*, void*, Stream);                              \
  template const char* batch_norm_backward<T>(const Planes&, const BatchNorm<T>&, const T*,       \
                                              const T*, const T*, T*, T*, T*, T*, void*, Stream); \
  template const char* fill<T>(T*, int64_t, T, Stream);
FACE_INSTANTIATE(float)
FACE_INSTANTIATE(double)

}  // namespace gpu
}  // namespace face
