// SPDX-License-Identifier: Apache-2.0
// Matrix products by cuBLAS, which is loaded at run time. This uses the cuBLAS that MXNet has
// already loaded, whatever its version, instead of a second one. So the build needs neither the
// header nor the library. The functions used here are the same in CUDA 11, 12 and 13.
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
  for (int flags : {RTLD_LAZY | RTLD_NOLOAD,
                    RTLD_LAZY | RTLD_LOCAL})  // prefer a library that is already loaded
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

constexpr int kMaxDevices = 64;
constexpr int kNormal = 0, kTransposed = 1;  // cublasOperation_t

bool fits(int64_t n) { return n > 0 && n <= INT32_MAX; }

}  // namespace

const char* blas_fault() {
  return library().complete ? nullptr
                            : "cuBLAS: no version 11, 12 or 13 can be loaded; install one";
}

template <typename T>
const char* product(void* workspace, Stream stream, const T* a, const Matrix& of_a, const T* b,
                    const Matrix& of_b, T beta, T* c, int64_t c_stride) {
  if (const char* why = blas_fault()) return why;
  for (int64_t n : {of_a.rows, of_a.columns, of_b.columns, of_a.stride, of_b.stride, c_stride})
    if (!fits(n)) return "cuBLAS: a matrix side or stride is not within 1 to 2147483647";
  int device = 0;
  if (cudaGetDevice(&device) != cudaSuccess || device >= kMaxDevices)
    return "cuBLAS: cudaGetDevice failed, or the device number is above 63";
  // One handle per device. The lock keeps a stream and the product on it together.
  static std::mutex mutex;
  static Handle handles[kMaxDevices] = {};
  const std::lock_guard<std::mutex> lock(mutex);
  Handle& handle = handles[device];
  if (!handle && library().create(&handle)) {
    handle = nullptr;
    return "cuBLAS: cublasCreate failed; the memory of the GPU may be full";
  }
  // Set the workspace after the stream, because cublasSetStream resets it.
  if (library().set_stream(handle, stream) ||
      library().set_workspace(handle, workspace, size_t(kBlasBytes)))
    return "cuBLAS: cublasSetStream or cublasSetWorkspace failed";
  // A row-major (m, n) matrix is a column-major (n, m) matrix, so compute c' = b' a'.
  const T one = 1;
  const int status = gemm(T())(handle, of_b.transposed ? kTransposed : kNormal,
                               of_a.transposed ? kTransposed : kNormal, int(of_b.columns),
                               int(of_a.rows), int(of_a.columns), &one, b, int(of_b.stride), a,
                               int(of_a.stride), &beta, c, int(c_stride));
  return status ? "cuBLAS: a matrix product failed" : nullptr;
}

template const char* product<float>(void*, Stream, const float*, const Matrix&, const float*,
                                    const Matrix&, float, float*, int64_t);
template const char* product<double>(void*, Stream, const double*, const Matrix&, const double*,
                                     const Matrix&, double, double*, int64_t);

}  // namespace gpu
}  // namespace face
