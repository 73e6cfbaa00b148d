// SPDX-License-Identifier: Apache-2.0
// Working memory that is lent by the caller.
//
// Included by level.cc, into the namespace of a level.
#pragma once

INLINE int64_t round_up(int64_t n, int64_t to) { return (n + to - 1) / to * to; }

// Takes pieces of the working memory, each aligned to a cache line and set to zero.
struct Memory {
  char* next;
  template <typename T>
  T* take(int64_t count) {
    T* piece = reinterpret_cast<T*>(next);
    const int64_t bytes = round_up(count * int64_t(sizeof(T)), 64);
    __builtin_memset(piece, 0, bytes);
    next += bytes;
    return piece;
  }
};
