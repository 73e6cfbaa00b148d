// SPDX-License-Identifier: Apache-2.0
// cuBLAS is found where the program runs: the one that MXNet has loaded, whichever its version, not
// a second one beside it. So neither its header nor its library is needed to compile this; the
// functions used here have been the same since CUDA 11.
#include "blas.h"

#include <dlfcn.h>

#include <mutex>

#include "cuda.h"

#ifndef FACE_CUBLAS  // tests name another library
#define FACE_CUBLAS "libcublas.so.11", "libcublas.so.12", "libcublas.so.13"
#endif

namespace face {
namespace gpu {
namespace {

using Handle = void*;
template <typename T>
using Gemm = int (*)(Handle, int, int, int, int, int, const T*, const T*, int, const T*, int,
                     const T*, T*, int);

struct Library {
  int (*create)(Handle*);
  int (*set_stream)(Handle, Stream);
  int (*set_workspace)(Handle, void*, size_t);
  Gemm<float> single;
  Gemm<double> twice;
  bool complete;
};

template <typename F>
bool find(void* library, const char* name, F* function) {
  *function = reinterpret_cast<F>(dlsym(library, name));
  return *function != nullptr;
}

Library open() {
  void* library = nullptr;
  for (int flags : {RTLD_LAZY | RTLD_NOLOAD, RTLD_LAZY | RTLD_LOCAL})  // first what is there
    for (const char* name : {FACE_CUBLAS})
      if (!library) library = dlopen(name, flags);
  Library found{};
  found.complete = library && find(library, "cublasCreate_v2", &found.create) &&
                   find(library, "cublasSetStream_v2", &found.set_stream) &&
                   find(library, "cublasSetWorkspace_v2", &found.set_workspace) &&
                   find(library, "cublasSgemm_v2", &found.single) &&
                   find(library, "cublasDgemm_v2", &found.twice);
  return found;
}

const Library& library() {
  static const Library found = open();
  return found;
}

Gemm<float> gemm(float) { return library().single; }
Gemm<double> gemm(double) { return library().twice; }

constexpr int kMostDevices = 64;
constexpr int kNormal = 0, kTransposed = 1;  // cublasOperation_t

bool fits(int64_t n) { return n > 0 && n <= INT32_MAX; }

}  // namespace

const char* blas_fault() {
  return library().complete ? nullptr : "cuBLAS 11, 12 or 13 cannot be loaded; install it";
}

template <typename T>
const char* product(void* memory, Stream stream, const T* a, const Matrix& of_a, const T* b,
                    const Matrix& of_b, T beta, T* c, int64_t c_stride) {
  if (const char* why = blas_fault()) return why;
  for (int64_t n : {of_a.rows, of_a.columns, of_b.columns, of_a.stride, of_b.stride, c_stride})
    if (!fits(n)) return "cuBLAS: a side of a matrix must be 1 to 2147483647";
  int device = 0;
  if (cudaGetDevice(&device) != cudaSuccess || device >= kMostDevices)
    return "cuBLAS: the current device cannot be found out";
  // One handle for each device; a stream and a product on it must not be parted by other threads.
  static std::mutex mutex;
  static Handle handles[kMostDevices] = {};
  const std::lock_guard<std::mutex> lock(mutex);
  Handle& handle = handles[device];
  if (!handle && library().create(&handle)) {
    handle = nullptr;
    return "cuBLAS: no handle for the device can be made; its memory may be full";
  }
  // The workspace after the stream, which sets it back.
  if (library().set_stream(handle, stream) ||
      library().set_workspace(handle, memory, size_t(kBlasBytes)))
    return "cuBLAS: the stream is refused";
  // What is (m, n) in rows is (n, m) in the columns that cuBLAS thinks in: c' = b' a'.
  const T one = 1;
  const int status = gemm(T())(
      handle, of_b.transposed ? kTransposed : kNormal, of_a.transposed ? kTransposed : kNormal,
      int(of_b.columns), int(of_a.rows), int(of_a.columns), &one, b, int(of_b.stride), a,
      int(of_a.stride), &beta, c, int(c_stride));
  return status ? "cuBLAS: a matrix product is refused" : nullptr;
}

template const char* product<float>(void*, Stream, const float*, const Matrix&, const float*,
                                    const Matrix&, float, float*, int64_t);
template const char* product<double>(void*, Stream, const double*, const Matrix&, const double*,
                                     const Matrix&, double, double*, int64_t);

}  // namespace gpu
}  // namespace face
