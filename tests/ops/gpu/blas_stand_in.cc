// SPDX-License-Identifier: Apache-2.0
// Stand-in for cuBLAS on arrays in host memory: the functions that ops/native/gpu/blas.cu calls.
// Layout, operations, leading dimensions and error codes are those of cuBLAS; the product is three
// loops.
#include <cstddef>
#include <cstring>

namespace {

constexpr int kSuccess = 0, kNotInitialised = 1, kInvalidValue = 7;
constexpr size_t kEdgeBytes = 4096;

int only_handle;
bool has_workspace;

// Computes c (m, n) = alpha a (m, k) b (k, n) + beta c, column-major; ta and tb transpose a and b.
template <typename T>
int product(void* handle, int ta, int tb, int m, int n, int k, const T* alpha, const T* a, int lda,
            const T* b, int ldb, const T* beta, T* c, int ldc) {
  if (handle != &only_handle || !has_workspace) return kNotInitialised;
  if (m < 0 || n < 0 || k < 0 || lda < (ta ? k : m) || ldb < (tb ? n : k) || ldc < m)
    return kInvalidValue;
  const auto left = [&](long i, long l) { return ta ? a[l + i * lda] : a[i + l * lda]; };
  const auto right = [&](long l, long j) { return tb ? b[j + l * ldb] : b[l + j * ldb]; };
  for (long j = 0; j < n; ++j)
    for (long i = 0; i < m; ++i) {
      T sums[8] = {};  // several partial sums, as on a GPU
      for (long l = 0; l < k; ++l) sums[l % 8] += left(i, l) * right(l, j);
      T sum = 0;
      for (T part : sums) sum += part;
      // If beta is 0, c must not be read: it may contain NaN.
      c[i + j * ldc] = *alpha * sum + (*beta == 0 ? T(0) : *beta * c[i + j * ldc]);
    }
  return kSuccess;
}

}  // namespace

extern "C" {

int cublasCreate_v2(void** handle) {
  *handle = &only_handle;
  return kSuccess;
}

int cublasSetStream_v2(void* handle, void*) {
  has_workspace = false;  // a new stream resets the workspace
  return handle == &only_handle ? kSuccess : kNotInitialised;
}

// Overwrites both ends of the workspace, as a product may do, so that other data there is
// destroyed.
int cublasSetWorkspace_v2(void*, void* memory, size_t bytes) {
  if (reinterpret_cast<size_t>(memory) % 256 || bytes < 2 * kEdgeBytes) return kInvalidValue;
  std::memset(memory, 0xff, kEdgeBytes);
  std::memset(static_cast<char*>(memory) + bytes - kEdgeBytes, 0xff, kEdgeBytes);
  has_workspace = true;
  return kSuccess;
}

int cublasSgemm_v2(void* handle, int ta, int tb, int m, int n, int k, const float* alpha,
                   const float* a, int lda, const float* b, int ldb, const float* beta, float* c,
                   int ldc) {
  return product(handle, ta, tb, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
}

int cublasDgemm_v2(void* handle, int ta, int tb, int m, int n, int k, const double* alpha,
                   const double* a, int lda, const double* b, int ldb, const double* beta,
                   double* c, int ldc) {
  return product(handle, ta, tb, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
}

}  // extern "C"
