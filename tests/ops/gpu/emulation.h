// SPDX-License-Identifier: Apache-2.0
// Emulation of CUDA on one CPU thread, for the parts that ops/native/gpu uses. The kernels compile
// as C++; every CUDA thread of a block is a fiber with its own stack.
//
// A fiber runs until it reaches a barrier (__syncthreads, or a shuffle for its warp); then the next
// fiber runs. If not all threads reach the same barrier, the program aborts with a message; a GPU
// would hang or compute wrong results. The order of threads and blocks is configurable: a kernel
// that lacks a barrier gives different results in different orders.
#pragma once
#include <setjmp.h>
#include <ucontext.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <random>
#include <vector>

#include "gpu.h"

#define __global__
#define __device__
#define __shared__ static  // one block runs at a time

enum cudaError_t { cudaSuccess, cudaErrorInvalidDevice = 101, cudaErrorNoKernelImage = 209 };

namespace emulation {
constexpr int kDevices = 4;
constexpr int kDeviceWithoutCode = 3;   // a device for which the library contains no code
inline thread_local int device = 0;     // current device of this CPU thread
inline std::atomic<unsigned> contexts;  // one bit per device with a context
}  // namespace emulation

struct cudaFuncAttributes {};
template <typename F>
cudaError_t cudaFuncGetAttributes(cudaFuncAttributes*, F) {
  emulation::contexts |= 1u << emulation::device;
  return emulation::device == emulation::kDeviceWithoutCode ? cudaErrorNoKernelImage : cudaSuccess;
}
inline cudaError_t cudaGetLastError() { return cudaSuccess; }
inline const char* cudaGetErrorString(cudaError_t error) {
  return error == cudaErrorInvalidDevice ? "invalid device ordinal"
         : error == cudaErrorNoKernelImage
             ? "no kernel image is available for execution on the device"
             : "";
}
inline cudaError_t cudaGetDevice(int* device) {
  *device = emulation::device;
  return cudaSuccess;
}
inline cudaError_t cudaSetDevice(int device) {
  if (device < 0 || device >= emulation::kDevices) return cudaErrorInvalidDevice;
  emulation::contexts |= 1u << device;  // from CUDA 12 on it creates a context
  emulation::device = device;
  return cudaSuccess;
}

struct EmulatedIndex {
  unsigned x;
};
inline EmulatedIndex threadIdx, blockIdx;

namespace emulation {

constexpr int kWarpThreads = 32, kMaxThreads = 1024, kStackBytes = 64 << 10;

enum class State { kReady, kAtBlock, kAtWarp, kDone };
enum class Order { kForward, kBackward, kShuffled };

struct Fiber {
  ucontext_t context;
  jmp_buf jump;
  std::unique_ptr<char[]> stack;
  State state = State::kDone;
  int line = 0;  // source line of the barrier at which the fiber waits
};

// Aborts the program with a message.
[[noreturn]] inline void stop(const char* sentence) {
  std::fprintf(stderr, "emulation: %s, block %u thread %u\n", sentence, blockIdx.x, threadIdx.x);
  std::abort();
}

inline Fiber fibers[kMaxThreads];
inline jmp_buf scheduler;
inline ucontext_t start;
inline std::function<void()> body;
inline Order order = Order::kForward;
inline void* stream = nullptr;  // the only stream on which kernels may be launched
inline long long launches = 0;

// Returns to the scheduler until it resumes this fiber. setjmp and longjmp switch stacks without a
// system call; swapcontext needs two.
inline void wait(State state, int line = 0) {
  Fiber& own = fibers[threadIdx.x];
  own.state = state;
  own.line = line;
  if (!_setjmp(own.jump)) _longjmp(scheduler, 1);
}

inline void fiber_main() {
  for (;;) {
    body();
    wait(State::kDone);
  }
}

inline void resume(unsigned thread) {
  Fiber& fiber = fibers[thread];
  threadIdx.x = thread;
  if (_setjmp(scheduler)) return;
  if (fiber.stack) _longjmp(fiber.jump, 1);
  fiber.stack.reset(new char[kStackBytes]);
  getcontext(&fiber.context);
  fiber.context.uc_stack.ss_sp = fiber.stack.get();
  fiber.context.uc_stack.ss_size = kStackBytes;
  fiber.context.uc_link = nullptr;
  makecontext(&fiber.context, fiber_main, 0);
  setcontext(&fiber.context);
}

// Makes fibers [begin, end) ready if all of them wait at the same barrier; returns whether it did.
inline bool release(int begin, int end, State barrier) {
  for (int i = begin; i < end; ++i)
    if (fibers[i].state != barrier || fibers[i].line != fibers[begin].line) return false;
  for (int i = begin; i < end; ++i) fibers[i].state = State::kReady;
  return true;
}

inline std::vector<unsigned> sequence(unsigned count) {
  static std::mt19937 generator(1);
  std::vector<unsigned> found(count);
  for (unsigned i = 0; i < count; ++i) found[i] = order == Order::kBackward ? count - 1 - i : i;
  if (order == Order::kShuffled) std::shuffle(found.begin(), found.end(), generator);
  return found;
}

inline void run_block(int threads, const std::vector<unsigned>& turns) {
  for (int i = 0; i < threads; ++i) fibers[i].state = State::kReady;
  for (;;) {
    for (unsigned i : turns)
      if (fibers[i].state == State::kReady) resume(i);
    bool released = release(0, threads, State::kAtBlock);
    for (int i = 0; i < threads; i += kWarpThreads)
      released |= release(i, i + kWarpThreads, State::kAtWarp);
    if (released) continue;
    for (int i = 0; i < threads; ++i)
      if (fibers[i].state != State::kDone) stop("not all threads reach this barrier");
    return;
  }
}

}  // namespace emulation

inline void emulated_barrier(int line) { emulation::wait(emulation::State::kAtBlock, line); }
#define __syncthreads() emulated_barrier(__LINE__)

template <typename T>
T __shfl_xor_sync(unsigned mask, T value, int distance) {
  if (mask != 0xffffffffu) emulation::stop("a shuffle does not include the whole warp");
  static T slots[emulation::kMaxThreads];
  const unsigned own = threadIdx.x;
  slots[own] = value;
  emulation::wait(emulation::State::kAtWarp);
  const T theirs = slots[own ^ unsigned(distance)];
  emulation::wait(emulation::State::kAtWarp);
  return theirs;
}

namespace face {
namespace gpu {

template <typename... P, typename... A>
void launch(void (*kernel)(P...), int64_t blocks, int threads, Stream stream, A... arguments) {
  if (stream != emulation::stream) emulation::stop("a kernel is launched on another stream");
  if (blocks < 1 || blocks > INT32_MAX || threads < 1 || threads > emulation::kMaxThreads ||
      threads % emulation::kWarpThreads)
    emulation::stop("the launch has an invalid number of blocks or threads");
  ++emulation::launches;
  emulation::body = [&] { kernel(static_cast<P>(arguments)...); };
  for (unsigned block : emulation::sequence(unsigned(blocks))) {
    blockIdx.x = block;
    emulation::run_block(threads, emulation::sequence(unsigned(threads)));
  }
}

}  // namespace gpu
}  // namespace face
