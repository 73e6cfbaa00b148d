// SPDX-License-Identifier: Apache-2.0
// MXNet operators that read and write some rows of a large matrix. `take` and `_scatter_set_nd` of
// MXNet 1.9 compute the place of every single number, these operators copy whole rows.
#include <cstring>

#include "operators.h"

namespace {

enum { kMatrix, kRows, kValues };

// Requires a floating-point matrix and int32 row numbers.
MXReturnValue row_types(const Attributes&, std::vector<int>* in, std::vector<int>* out) {
  const int type = (*in)[kMatrix];
  if (type != kFloat32 && type != kFloat64)
    return fail("rows: the matrix must be float32 or float64, got MXNet type code " +
                std::to_string(type) + "; cast it");
  if ((*in)[kRows] != kInt32)
    return fail("rows: row numbers must be int32, got MXNet type code " +
                std::to_string((*in)[kRows]) + "; cast them");
  if (in->size() > kValues) {
    if ((*in)[kValues] != type)
      return fail("rows: values must have the type of the matrix, got MXNet type codes " +
                  std::to_string((*in)[kValues]) + " and " + std::to_string(type) + "; cast them");
  }
  (*out)[0] = type;
  return MX_SUCCESS;
}

MXReturnValue require_matrix(const Shapes& in) {
  if (in[kMatrix].size() == 2 && in[kRows].size() == 1) return MX_SUCCESS;
  return fail("rows: the matrix must be (C, E) and row numbers (m,), got " +
              shape_text(in[kMatrix]) + " and " + shape_text(in[kRows]) + "; reshape them");
}

// Calls copy(place, row) for each row number, on several threads. Fails for a row outside.
template <typename Copy>
MXReturnValue for_each_row(MXTensor& matrix, MXTensor& numbers, Copy copy) {
  const int32_t* rows = numbers.data<int32_t>();
  const int64_t count = numbers.shape[0], most = matrix.shape[0];
  for (int64_t i = 0; i < count; ++i)
    if (rows[i] < 0 || rows[i] >= most)
      return fail("rows: row numbers must be 0 to " + std::to_string(most - 1) + ", got " +
                  std::to_string(rows[i]) + "; pass other rows");
#pragma omp parallel for num_threads(threads()) schedule(static)
  for (int64_t i = 0; i < count; ++i) copy(i, int64_t(rows[i]));
  return MX_SUCCESS;
}

int64_t row_bytes(const MXTensor& matrix) {
  return matrix.shape[1] * int64_t(matrix.dtype == kFloat64 ? sizeof(double) : sizeof(float));
}

// ---- Rows of a matrix. Inputs: matrix (C, E), row numbers (m,). Output: (m, E).

MXReturnValue take_attributes(const Attributes&, int* inputs, int* outputs) {
  *inputs = kValues;
  *outputs = 1;
  return MX_SUCCESS;
}

MXReturnValue take_shapes(const Attributes&, Shapes* in, Shapes* out) {
  (*out)[0] = {(*in)[kRows].empty() ? 0 : (*in)[kRows][0],
               (*in)[kMatrix].size() == 2 ? (*in)[kMatrix][1] : 0};
  return require_matrix(*in);
}

MXReturnValue take(const Attributes&, Tensors* in, Tensors* out, const OpResource&) {
  const char* matrix = static_cast<const char*>((*in)[kMatrix].data_ptr);
  char* taken = static_cast<char*>((*out)[0].data_ptr);
  const int64_t bytes = row_bytes((*in)[kMatrix]);
  return for_each_row((*in)[kMatrix], (*in)[kRows], [=](int64_t place, int64_t row) {
    std::memcpy(taken + place * bytes, matrix + row * bytes, bytes);
  });
}

REGISTER_OP(face_take_rows)
    .setForward(take, "cpu")
    .setParseAttrs(take_attributes)
    .setInferType(row_types)
    .setInferShape(take_shapes);

// ---- Write rows of a matrix. Inputs: matrix (C, E), distinct row numbers (m,), values (m, E).
// Modifies the matrix. Output: one number without meaning, (1,).

MXReturnValue write_attributes(const Attributes&, int* inputs, int* outputs) {
  *inputs = kValues + 1;
  *outputs = 1;
  return MX_SUCCESS;
}

MXReturnValue write_shapes(const Attributes&, Shapes* in, Shapes* out) {
  (*out)[0] = {1};
  if (require_matrix(*in) != MX_SUCCESS) return MX_FAIL;
  const std::vector<unsigned int> expected = {(*in)[kRows][0], (*in)[kMatrix][1]};
  if ((*in)[kValues] != expected)
    return fail("rows: values must be " + shape_text(expected) + ", got " +
                shape_text((*in)[kValues]) + "; reshape them");
  return MX_SUCCESS;
}

MXReturnValue write_mutates(const Attributes&, std::vector<int>* inputs) {
  *inputs = {kMatrix};
  return MX_SUCCESS;
}

MXReturnValue write(const Attributes&, Tensors* in, Tensors* out, const OpResource&) {
  char* matrix = static_cast<char*>((*in)[kMatrix].data_ptr);
  const char* values = static_cast<const char*>((*in)[kValues].data_ptr);
  const int64_t bytes = row_bytes((*in)[kMatrix]);
  std::memset((*out)[0].data_ptr, 0, bytes / (*in)[kMatrix].shape[1]);
  return for_each_row((*in)[kMatrix], (*in)[kRows], [=](int64_t place, int64_t row) {
    std::memcpy(matrix + row * bytes, values + place * bytes, bytes);
  });
}

REGISTER_OP(face_write_rows)
    .setForward(write, "cpu")
    .setParseAttrs(write_attributes)
    .setInferType(row_types)
    .setInferShape(write_shapes)
    .setMutateInputs(write_mutates);

}  // namespace
