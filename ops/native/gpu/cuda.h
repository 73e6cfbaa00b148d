// SPDX-License-Identifier: Apache-2.0
// The only place that starts kernels, and what CUDA sources and their tests on the CPU share.
//
// The same sources are compiled by a C++ compiler in tests/ops/gpu, whose emulation.h takes the
// place of CUDA: so there are no chevrons elsewhere, and of CUDA only what emulation.h has.
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

constexpr int kWarp = 32;
constexpr int kThreads = 256;  // of a block
constexpr int kWarps = kThreads / kWarp;

inline int64_t divide_up(int64_t n, int64_t by) { return (n + by - 1) / by; }
inline int64_t round_up(int64_t n, int64_t to) { return divide_up(n, to) * to; }

// Takes pieces of the working memory; from 0 on it counts the bytes that they need.
struct Memory {
  uintptr_t next;
  template <typename T>
  T* take(int64_t count) {
    T* piece = reinterpret_cast<T*>(next);
    next += static_cast<uintptr_t>(round_up(count * int64_t(sizeof(T)), kAlignment));
    return piece;
  }
};

// What went wrong with the launches so far; it does not wait for them.
inline const char* launch_fault() {
  const cudaError_t error = cudaGetLastError();
  return error == cudaSuccess ? nullptr : cudaGetErrorString(error);
}

}  // namespace gpu
}  // namespace face
