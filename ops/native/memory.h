// SPDX-License-Identifier: Apache-2.0
// Workspace allocation: kernels split a buffer that their caller provides.
//
// Included by level.cc, into the namespace of a level.
#pragma once

INLINE int64_t round_up(int64_t n, int64_t to) { return (n + to - 1) / to * to; }

// Allocates zeroed arrays from the workspace, each aligned to a cache line.
struct Arena {
  char* next;
  template <typename T>
  T* allocate(int64_t count) {
    T* array = reinterpret_cast<T*>(next);
    const int64_t bytes = round_up(count * int64_t(sizeof(T)), 64);
    __builtin_memset(array, 0, bytes);
    next += bytes;
    return array;
  }
};
