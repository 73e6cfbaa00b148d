// SPDX-License-Identifier: Apache-2.0
// Matrix products on the device, by cuBLAS.
#pragma once
#include "gpu.h"

namespace face {
namespace gpu {

// cuBLAS's own working memory comes out of ours, so that products on two streams do not meet there.
constexpr int64_t kBlasBytes = 4 << 20;

struct Matrix {
  int64_t rows, columns;  // as it enters the product
  int64_t stride;         // values from one row in memory to the next
  bool transposed;        // in memory, against how it enters the product
};

// c = a b + beta c, all in rows; c (a.rows, b.columns) has rows c_stride apart.
template <typename T>
const char* product(void* memory, Stream stream, const T* a, const Matrix& of_a, const T* b,
                    const Matrix& of_b, T beta, T* c, int64_t c_stride);

// Why there is no cuBLAS, or null.
const char* blas_fault();

}  // namespace gpu
}  // namespace face
