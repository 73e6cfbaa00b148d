// SPDX-License-Identifier: Apache-2.0
// Helpers of the MXNet operators: attributes, types, shapes, workspace and threads.
#pragma once
#include <omp.h>

#include <cmath>
#include <limits>
#include <string>
#include <unordered_map>
#include <vector>

#include "kernels.h"
#include "lib_api.h"

using namespace mxnet::ext;  // NOLINT: the registration macros need it

using Attributes = std::unordered_map<std::string, std::string>;
using Shapes = std::vector<std::vector<unsigned int>>;
using Tensors = std::vector<MXTensor>;

inline int threads() {
  const int n = omp_get_max_threads();  // 0 in MXNet's worker threads if OMP_NUM_THREADS is 1
  return n < 1 ? 1 : n < face::kMaxThreads ? n : face::kMaxThreads;
}

inline double number(const Attributes& attributes, const char* name) {
  return std::stod(attributes.at(name));
}

// Returns whether PReLU follows the layer of an operator.
inline bool has_prelu(const Attributes& attributes) { return attributes.at("prelu") == "True"; }

inline MXReturnValue fail(const std::string& sentence) {
  MX_ERROR_MSG << sentence;
  return MX_FAIL;
}

// Returns a shape as text, such as "(2, 3)", for error messages.
inline std::string shape_text(const std::vector<unsigned int>& shape) {
  std::string text;
  for (unsigned int side : shape) text += (text.empty() ? "" : ", ") + std::to_string(side);
  return "(" + text + ")";
}

// Requires one floating-point type for all inputs and outputs.
inline MXReturnValue same_type(const Attributes&, std::vector<int>* in, std::vector<int>* out) {
  const int type = (*in)[0];
  if (type != kFloat32 && type != kFloat64)
    return fail("operator: inputs must be float32 or float64, got MXNet type code " +
                std::to_string(type) + "; cast them");
  for (int& other : *in) {
    if (other != -1 && other != type)
      return fail("operator: inputs must have one type, got MXNet type codes " +
                  std::to_string(type) + " and " + std::to_string(other) + "; cast them");
    other = type;
  }
  for (int& other : *out) other = type;
  return MX_SUCCESS;
}

// Returns a workspace from MXNet, aligned to a cache line; null if MXNet's int cannot hold its
// size.
inline char* workspace_of(const OpResource& resource, int64_t bytes) {
  if (bytes > std::numeric_limits<int>::max() - 64) return nullptr;
  char* memory = static_cast<char*>(resource.alloc_cpu(static_cast<int>(bytes + 64)));
  return memory + (64 - reinterpret_cast<uintptr_t>(memory) % 64) % 64;
}

inline MXReturnValue workspace_too_large() {
  return fail(
      "operator: workspace must be below 2 GiB, got a larger one; lower data.batch_size or "
      "OMP_NUM_THREADS");
}

template <fcomp_t single, fcomp_t twice>
MXReturnValue by_type(const Attributes& attributes, Tensors* in, Tensors* out,
                      const OpResource& resource) {
  return ((*in)[0].dtype == kFloat64 ? twice : single)(attributes, in, out, resource);
}

inline face::Planes planes(const MXTensor& x) {
  face::Planes size{x.shape[0], x.shape[1], 1};
  for (size_t i = 2; i < x.shape.size(); ++i) size.P *= x.shape[i];
  return size;
}
