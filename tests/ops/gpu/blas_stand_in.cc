// SPDX-License-Identifier: Apache-2.0
// A cuBLAS with what ops/native/gpu/blas.cu asks of one, for arrays in the host's memory: columns,
// operations, leading dimensions and faults are cuBLAS's, the product is three loops.
#include <cstddef>
#include <cstring>

namespace {

constexpr int kSuccess = 0, kNotInitialised = 1, kInvalidValue = 7;
constexpr size_t kEdge = 4096;

int handle_of_one;
bool ready;

// c (m, n) = a (m, k) b (k, n) alpha + beta c, in columns; t: rows of the memory are columns.
template <typename T>
int product(void* handle, int ta, int tb, int m, int n, int k, const T* alpha, const T* a, int lda,
            const T* b, int ldb, const T* beta, T* c, int ldc) {
  if (handle != &handle_of_one || !ready) return kNotInitialised;
  if (m < 0 || n < 0 || k < 0 || lda < (ta ? k : m) || ldb < (tb ? n : k) || ldc < m)
    return kInvalidValue;
  const auto left = [&](long i, long l) { return ta ? a[l + i * lda] : a[i + l * lda]; };
  const auto right = [&](long l, long j) { return tb ? b[j + l * ldb] : b[l + j * ldb]; };
  for (long j = 0; j < n; ++j)
    for (long i = 0; i < m; ++i) {
      T sums[8] = {};  // some partial sums, as a GPU has
      for (long l = 0; l < k; ++l) sums[l % 8] += left(i, l) * right(l, j);
      T sum = 0;
      for (T part : sums) sum += part;
      // With beta 0 what is in c must not be read: it may be NaN.
      c[i + j * ldc] = *alpha * sum + (*beta == 0 ? T(0) : *beta * c[i + j * ldc]);
    }
  return kSuccess;
}

}  // namespace

extern "C" {

int cublasCreate_v2(void** handle) {
  *handle = &handle_of_one;
  return kSuccess;
}

int cublasSetStream_v2(void* handle, void*) {
  ready = false;  // a new stream takes the workspace away
  return handle == &handle_of_one ? kSuccess : kNotInitialised;
}

// Writes over both ends of the workspace, as a product may: nothing else may lie there.
int cublasSetWorkspace_v2(void*, void* memory, size_t bytes) {
  if (reinterpret_cast<size_t>(memory) % 256 || bytes < 2 * kEdge) return kInvalidValue;
  std::memset(memory, 0xff, kEdge);
  std::memset(static_cast<char*>(memory) + bytes - kEdge, 0xff, kEdge);
  ready = true;
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
