// SPDX-License-Identifier: Apache-2.0
// Matrix products on the GPU by cuBLAS.
#pragma once
#include "gpu.h"

namespace face {
namespace gpu {

// Workspace of cuBLAS, part of the operator's workspace so that two streams never share one.
constexpr int64_t kBlasBytes = 4 << 20;

struct Matrix {
  int64_t rows, columns;  // of the operand
  int64_t stride;         // values from one row in memory to the next
  bool transposed;        // whether memory holds the transpose of the operand
};

// Computes c = a b + beta c, all row-major; the rows of c (a.rows, b.columns) are c_stride apart.
// Returns null, or why the product failed.
template <typename T>
const char* product(void* workspace, Stream stream, const T* a, const Matrix& of_a, const T* b,
                    const Matrix& of_b, T beta, T* c, int64_t c_stride);

// Returns why cuBLAS cannot be used, or null.
const char* blas_fault();

}  // namespace gpu
}  // namespace face
