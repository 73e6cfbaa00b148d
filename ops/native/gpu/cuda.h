// SPDX-License-Identifier: Apache-2.0
// Kernel launch and constants of all CUDA sources.
//
// tests/ops/gpu compiles the same sources with a C++ compiler and emulation.h instead of CUDA. So
// only this file contains <<< >>>, and the sources use only those parts of CUDA that emulation.h
// defines.
#pragma once
#include <cmath>
#include <cstdint>

#include "gpu.h"

#ifdef __CUDACC__
#include <cuda_runtime.h>

namespace face {
namespace gpu {

template <typename... P, typename... A>
void launch(void (*kernel)(P...), int64_t blocks, int threads, Stream stream, A... arguments) {
  kernel<<<static_cast<unsigned>(blocks), threads, 0, stream>>>(static_cast<P>(arguments)...);
}

}  // namespace gpu
}  // namespace face
#else
#include "emulation.h"
#endif

namespace face {
namespace gpu {

constexpr int kWarpThreads = 32;
constexpr int kBlockThreads = 256;  // threads of a block
constexpr int kBlockWarps = kBlockThreads / kWarpThreads;

inline int64_t divide_up(int64_t n, int64_t by) { return (n + by - 1) / by; }
inline int64_t round_up(int64_t n, int64_t to) { return divide_up(n, to) * to; }

// Allocates arrays from the workspace. Starting at address 0 it computes the size of the workspace.
struct Arena {
  uintptr_t next;
  template <typename T>
  T* allocate(int64_t count) {
    T* array = reinterpret_cast<T*>(next);
    next += static_cast<uintptr_t>(round_up(count * int64_t(sizeof(T)), kAlignment));
    return array;
  }
};

// Returns the error of the launches so far, or null. Does not wait for the kernels.
inline const char* launch_fault() {
  const cudaError_t error = cudaGetLastError();
  return error == cudaSuccess ? nullptr : cudaGetErrorString(error);
}

}  // namespace gpu
}  // namespace face
