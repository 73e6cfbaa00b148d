// SPDX-License-Identifier: Apache-2.0
// The operators as MXNet sees them: shapes, types, working memory, threads.
#include <omp.h>

#include <cmath>
#include <string>
#include <unordered_map>
#include <vector>

#include "kernels.h"
#include "lib_api.h"

using namespace mxnet::ext;  // NOLINT: the registration macros need it

namespace {

using Attributes = std::unordered_map<std::string, std::string>;
using Shapes = std::vector<std::vector<unsigned int>>;
using Tensors = std::vector<MXTensor>;

int threads() {
  const int n = omp_get_max_threads();  // 0 in MXNet's workers where OMP_NUM_THREADS is 1
  return n < 1 ? 1 : n < face::kMostThreads ? n : face::kMostThreads;
}

double number(const Attributes& attributes, const char* name) {
  return std::stod(attributes.at(name));
}

MXReturnValue fail(const std::string& sentence) {
  MX_ERROR_MSG << sentence;
  return MX_FAIL;
}

// One real type for all inputs and outputs.
MXReturnValue same_type(const Attributes&, std::vector<int>* in, std::vector<int>* out) {
  const int type = (*in)[0];
  if (type != kFloat32 && type != kFloat64)
    return fail("inputs must be float32 or float64; cast them");
  for (int& other : *in) {
    if (other != -1 && other != type) return fail("inputs must be of one type; cast them");
    other = type;
  }
  for (int& other : *out) other = type;
  return MX_SUCCESS;
}

// Working memory that MXNet lends, at a cache line; -1 bytes too many for its int.
char* lend(const OpResource& resource, int64_t bytes) {
  char* memory = static_cast<char*>(resource.alloc_cpu(static_cast<int>(bytes + 64)));
  return memory + (64 - reinterpret_cast<uintptr_t>(memory) % 64) % 64;
}

// ---- margin softmax

enum { kEmbedding, kCentres, kLabel, kPsi, kSlope };

MXReturnValue margin_softmax_attributes(const Attributes& attributes, int* inputs, int* outputs) {
  if (!attributes.count("scale")) return fail("face_margin_softmax: scale is required");
  *inputs = 5;
  *outputs = 3;
  return MX_SUCCESS;
}

MXReturnValue margin_softmax_shapes(const Attributes&, Shapes* in, Shapes* out) {
  const auto& embedding = (*in)[kEmbedding];
  const auto& centres = (*in)[kCentres];
  if (embedding.size() != 2 || centres.size() != 2 || embedding[1] != centres[1])
    return fail("face_margin_softmax: embedding must be (B, E) and class centres (C, E)");
  const std::vector<unsigned int> rows = {embedding[0]};
  for (int i : {kLabel, kPsi, kSlope}) {
    if ((*in)[i].empty()) (*in)[i] = rows;
    if ((*in)[i] != rows)
      return fail("face_margin_softmax: label, psi and slope must be (B,)");
  }
  for (auto& shape : *out) shape = rows;
  return MX_SUCCESS;
}

template <typename T>
face::MarginSoftmax<T> margin_softmax_inputs(const Attributes& attributes, Tensors* in, int from) {
  MXTensor* tensors = in->data() + from;
  return {tensors[kEmbedding].shape[0], tensors[kEmbedding].shape[1], tensors[kCentres].shape[0],
          tensors[kEmbedding].data<T>(), tensors[kCentres].data<T>(), tensors[kLabel].data<T>(),
          tensors[kPsi].data<T>(), tensors[kSlope].data<T>(),
          static_cast<T>(number(attributes, "scale"))};
}

const face::MarginSoftmaxKernels<float>& of(float) { return face::kernels().margin_softmax_float; }
const face::MarginSoftmaxKernels<double>& of(double) {
  return face::kernels().margin_softmax_double;
}

template <typename T>
MXReturnValue margin_softmax_forward(const Attributes& attributes, Tensors* in, Tensors* out,
                                     const OpResource& resource) {
  const auto inputs = margin_softmax_inputs<T>(attributes, in, 0);
  for (int64_t b = 0; b < inputs.B; ++b) {
    const T label = inputs.label[b];
    if (!(label >= -1 && label < inputs.C) || label != std::floor(label))
      return fail("head: label " + std::to_string(label) + " of row " + std::to_string(b) +
                  " is none of the " + std::to_string(inputs.C) +
                  " classes; labels are 0 to C - 1, or -1 for a target elsewhere");
  }
  const int n = threads();
  char* memory = lend(resource, of(T()).bytes(inputs.B, inputs.D, n));
  of(T()).forward(inputs, n, memory, (*out)[0].data<T>(), (*out)[1].data<T>(),
                  (*out)[2].data<T>());
  return MX_SUCCESS;
}

// Gets the gradients of the 3 outputs, the 5 inputs, the 3 outputs.
template <typename T>
MXReturnValue margin_softmax_backward(const Attributes& attributes, Tensors* in, Tensors* out,
                                      const OpResource& resource) {
  const auto inputs = margin_softmax_inputs<T>(attributes, in, 3);
  const int n = threads();
  char* memory = lend(resource, of(T()).bytes(inputs.B, inputs.D, n));
  of(T()).backward(inputs, n, memory, (*in)[9].data<T>(), (*in)[10].data<T>(),
                   (*in)[0].data<T>(), (*out)[kEmbedding].data<T>(), (*out)[kCentres].data<T>());
  for (int i : {kLabel, kPsi, kSlope})
    for (int64_t b = 0; b < inputs.B; ++b) (*out)[i].data<T>()[b] = 0;
  return MX_SUCCESS;
}

template <fcomp_t single, fcomp_t twice>
MXReturnValue by_type(const Attributes& attributes, Tensors* in, Tensors* out,
                      const OpResource& resource) {
  return ((*in)[0].dtype == kFloat64 ? twice : single)(attributes, in, out, resource);
}

REGISTER_OP(face_margin_softmax)
    .setForward(by_type<margin_softmax_forward<float>, margin_softmax_forward<double>>, "cpu")
    .setBackward(by_type<margin_softmax_backward<float>, margin_softmax_backward<double>>, "cpu")
    .setParseAttrs(margin_softmax_attributes)
    .setInferType(same_type)
    .setInferShape(margin_softmax_shapes);

// ---- PReLU: x (N, C, ...), slope (C,)

face::Planes planes(const MXTensor& x) {
  face::Planes size{x.shape[0], x.shape[1], 1};
  for (size_t i = 2; i < x.shape.size(); ++i) size.P *= x.shape[i];
  return size;
}

const face::ActivationKernels<float>& activation(float) { return face::kernels().activation_float; }
const face::ActivationKernels<double>& activation(double) {
  return face::kernels().activation_double;
}

MXReturnValue prelu_attributes(const Attributes&, int* inputs, int* outputs) {
  *inputs = 2;
  *outputs = 1;
  return MX_SUCCESS;
}

MXReturnValue prelu_shapes(const Attributes&, Shapes* in, Shapes* out) {
  if ((*in)[0].size() < 2 || (*in)[1] != std::vector<unsigned int>{(*in)[0][1]})
    return fail("face_prelu: x must be (N, C, ...) and slope (C,)");
  (*out)[0] = (*in)[0];
  return MX_SUCCESS;
}

template <typename T>
MXReturnValue prelu_forward(const Attributes&, Tensors* in, Tensors* out, const OpResource&) {
  activation(T()).prelu_forward(planes((*in)[0]), threads(), (*in)[0].data<T>(),
                                (*in)[1].data<T>(), (*out)[0].data<T>());
  return MX_SUCCESS;
}

// Gets the gradient of the output, the 2 inputs, the output.
template <typename T>
MXReturnValue prelu_backward(const Attributes&, Tensors* in, Tensors* out, const OpResource&) {
  activation(T()).prelu_backward(planes((*in)[1]), threads(), (*in)[1].data<T>(),
                                 (*in)[2].data<T>(), (*in)[0].data<T>(), (*out)[0].data<T>(),
                                 (*out)[1].data<T>());
  return MX_SUCCESS;
}

REGISTER_OP(face_prelu)
    .setForward(by_type<prelu_forward<float>, prelu_forward<double>>, "cpu")
    .setBackward(by_type<prelu_backward<float>, prelu_backward<double>>, "cpu")
    .setParseAttrs(prelu_attributes)
    .setInferType(same_type)
    .setInferShape(prelu_shapes);

// ---- batch normalisation of training: x (N, C, ...), gamma, beta, running mean and variance (C,),
// slope (C,) where a PReLU stands behind it. Gives y, mean and 1 / deviation.

enum { kX, kGamma, kBeta, kRunningMean, kRunningVariance, kPReLU };

bool has_prelu(const Attributes& attributes) { return attributes.at("prelu") == "True"; }

MXReturnValue batch_norm_attributes(const Attributes& attributes, int* inputs, int* outputs) {
  for (const char* name : {"prelu", "epsilon", "momentum"})
    if (!attributes.count(name))
      return fail(std::string("face_batch_norm: ") + name + " is required");
  *inputs = has_prelu(attributes) ? 6 : 5;
  *outputs = 3;
  return MX_SUCCESS;
}

MXReturnValue batch_norm_shapes(const Attributes&, Shapes* in, Shapes* out) {
  if ((*in)[0].size() < 2) return fail("face_batch_norm: x must be (N, C, ...)");
  const std::vector<unsigned int> channels = {(*in)[0][1]};
  for (size_t i = 1; i < in->size(); ++i) {
    if ((*in)[i].empty()) (*in)[i] = channels;
    if ((*in)[i] != channels)
      return fail("face_batch_norm: gamma, beta, statistics and slope must be (C,)");
  }
  (*out)[0] = (*in)[0];
  (*out)[1] = (*out)[2] = channels;
  return MX_SUCCESS;
}

MXReturnValue batch_norm_mutates(const Attributes&, std::vector<int>* inputs) {
  *inputs = {kRunningMean, kRunningVariance};
  return MX_SUCCESS;
}

template <typename T>
face::BatchNorm<T> batch_norm_inputs(const Attributes& attributes, Tensors* in, int from) {
  MXTensor* tensors = in->data() + from;
  return {tensors[kX].data<T>(), tensors[kGamma].data<T>(), tensors[kBeta].data<T>(),
          has_prelu(attributes) ? tensors[kPReLU].data<T>() : nullptr,
          static_cast<T>(number(attributes, "epsilon"))};
}

template <typename T>
MXReturnValue batch_norm_forward(const Attributes& attributes, Tensors* in, Tensors* out,
                                 const OpResource&) {
  activation(T()).batch_norm_forward(
      planes((*in)[kX]), threads(), batch_norm_inputs<T>(attributes, in, 0),
      static_cast<T>(number(attributes, "momentum")), (*out)[0].data<T>(), (*out)[1].data<T>(),
      (*out)[2].data<T>(), (*in)[kRunningMean].data<T>(), (*in)[kRunningVariance].data<T>());
  return MX_SUCCESS;
}

// Gets the gradients of the 3 outputs, the inputs, the 3 outputs.
template <typename T>
MXReturnValue batch_norm_backward(const Attributes& attributes, Tensors* in, Tensors* out,
                                  const OpResource&) {
  const size_t inputs = out->size();
  activation(T()).batch_norm_backward(
      planes((*in)[3 + kX]), threads(), batch_norm_inputs<T>(attributes, in, 3),
      (*in)[3 + inputs + 1].data<T>(), (*in)[3 + inputs + 2].data<T>(), (*in)[0].data<T>(),
      (*out)[kX].data<T>(), (*out)[kGamma].data<T>(), (*out)[kBeta].data<T>(),
      has_prelu(attributes) ? (*out)[kPReLU].data<T>() : nullptr);
  for (int i : {kRunningMean, kRunningVariance})
    for (int64_t c = 0; c < (*out)[i].size(); ++c) (*out)[i].data<T>()[c] = 0;
  return MX_SUCCESS;
}

REGISTER_OP(face_batch_norm)
    .setForward(by_type<batch_norm_forward<float>, batch_norm_forward<double>>, "cpu")
    .setBackward(by_type<batch_norm_backward<float>, batch_norm_backward<double>>, "cpu")
    .setParseAttrs(batch_norm_attributes)
    .setInferType(same_type)
    .setInferShape(batch_norm_shapes)
    .setMutateInputs(batch_norm_mutates);

// ---- 1x1 convolution: x (N, inputs, ...), weight (outputs, inputs, 1, 1)

MXReturnValue pointwise_attributes(const Attributes&, int* inputs, int* outputs) {
  *inputs = 2;
  *outputs = 1;
  return MX_SUCCESS;
}

MXReturnValue pointwise_shapes(const Attributes&, Shapes* in, Shapes* out) {
  const auto &x = (*in)[0], &weight = (*in)[1];
  if (x.size() < 3 || weight.size() < 2 || weight[1] != x[1])
    return fail("face_pointwise: x must be (N, C, ...) and weight (outputs, C, 1, 1)");
  (*out)[0] = x;
  (*out)[0][1] = weight[0];
  return MX_SUCCESS;
}

const face::PointwiseKernels<float>& pointwise(float) { return face::kernels().pointwise_float; }
const face::PointwiseKernels<double>& pointwise(double) { return face::kernels().pointwise_double; }

face::Pointwise pointwise_size(const MXTensor& x, const MXTensor& weight) {
  const face::Planes size = planes(x);
  return {size.N, size.C, weight.shape[0], size.P};
}

template <typename T>
MXReturnValue pointwise_forward(const Attributes&, Tensors* in, Tensors* out,
                                const OpResource& resource) {
  const face::Pointwise size = pointwise_size((*in)[0], (*in)[1]);
  const int n = threads();
  char* memory = lend(resource, pointwise(T()).bytes(size, n));
  pointwise(T()).forward(size, n, memory, (*in)[0].data<T>(), (*in)[1].data<T>(),
                         (*out)[0].data<T>());
  return MX_SUCCESS;
}

// Gets the gradient of the output, the 2 inputs, the output.
template <typename T>
MXReturnValue pointwise_backward(const Attributes&, Tensors* in, Tensors* out,
                                 const OpResource& resource) {
  const face::Pointwise size = pointwise_size((*in)[1], (*in)[2]);
  const int n = threads();
  char* memory = lend(resource, pointwise(T()).bytes(size, n));
  pointwise(T()).backward(size, n, memory, (*in)[1].data<T>(), (*in)[2].data<T>(),
                          (*in)[0].data<T>(), (*out)[0].data<T>(), (*out)[1].data<T>());
  return MX_SUCCESS;
}

REGISTER_OP(face_pointwise)
    .setForward(by_type<pointwise_forward<float>, pointwise_forward<double>>, "cpu")
    .setBackward(by_type<pointwise_backward<float>, pointwise_backward<double>>, "cpu")
    .setParseAttrs(pointwise_attributes)
    .setInferType(same_type)
    .setInferShape(pointwise_shapes);

// ---- depthwise 3x3 convolution, batch normalisation, PReLU: x (N, C, H, W), weight (C, 1, 3, 3),
// gamma, beta, running mean and variance, slope (C,). Gives y, mean and 1 / deviation.

enum { kDX, kDWeight, kDGamma, kDBeta, kDRunningMean, kDRunningVariance, kDSlope };

MXReturnValue depthwise_attributes(const Attributes& attributes, int* inputs, int* outputs) {
  for (const char* name : {"stride", "epsilon", "momentum"})
    if (!attributes.count(name))
      return fail(std::string("face_depthwise_norm: ") + name + " is required");
  *inputs = 7;
  *outputs = 3;
  return MX_SUCCESS;
}

MXReturnValue depthwise_shapes(const Attributes& attributes, Shapes* in, Shapes* out) {
  const auto& x = (*in)[kDX];
  if (x.size() != 4) return fail("face_depthwise_norm: x must be (N, C, H, W)");
  const unsigned int step = static_cast<unsigned int>(number(attributes, "stride"));
  const std::vector<unsigned int> channels = {x[1]}, nine = {x[1], 1, 3, 3};
  for (size_t i = 1; i < in->size(); ++i) {
    const auto& expected = i == kDWeight ? nine : channels;
    if ((*in)[i].empty()) (*in)[i] = expected;
    if ((*in)[i] != expected)
      return fail("face_depthwise_norm: weight must be (C, 1, 3, 3), all others (C,)");
  }
  (*out)[0] = {x[0], x[1], (x[2] + step - 1) / step, (x[3] + step - 1) / step};
  (*out)[1] = (*out)[2] = channels;
  return MX_SUCCESS;
}

MXReturnValue depthwise_mutates(const Attributes&, std::vector<int>* inputs) {
  *inputs = {kDRunningMean, kDRunningVariance};
  return MX_SUCCESS;
}

const face::DepthwiseKernels<float>& depthwise(float) { return face::kernels().depthwise_float; }
const face::DepthwiseKernels<double>& depthwise(double) { return face::kernels().depthwise_double; }

face::Depthwise depthwise_size(const Attributes& attributes, const MXTensor& x) {
  return {x.shape[0], x.shape[1], x.shape[2], x.shape[3],
          static_cast<int64_t>(number(attributes, "stride"))};
}

template <typename T>
face::BatchNorm<T> depthwise_inputs(const Attributes& attributes, Tensors* in, int from) {
  MXTensor* tensors = in->data() + from;
  return {tensors[kDX].data<T>(), tensors[kDGamma].data<T>(), tensors[kDBeta].data<T>(),
          tensors[kDSlope].data<T>(), static_cast<T>(number(attributes, "epsilon"))};
}

template <typename T>
MXReturnValue depthwise_forward(const Attributes& attributes, Tensors* in, Tensors* out,
                                const OpResource& resource) {
  const face::Depthwise size = depthwise_size(attributes, (*in)[kDX]);
  const int n = threads();
  char* memory = lend(resource, depthwise(T()).bytes(size, n));
  depthwise(T()).forward(size, n, memory, depthwise_inputs<T>(attributes, in, 0),
                         (*in)[kDWeight].data<T>(),
                         static_cast<T>(number(attributes, "momentum")), (*out)[0].data<T>(),
                         (*out)[1].data<T>(), (*out)[2].data<T>(),
                         (*in)[kDRunningMean].data<T>(), (*in)[kDRunningVariance].data<T>());
  return MX_SUCCESS;
}

// Gets the gradients of the 3 outputs, the 7 inputs, the 3 outputs.
template <typename T>
MXReturnValue depthwise_backward(const Attributes& attributes, Tensors* in, Tensors* out,
                                 const OpResource& resource) {
  const face::Depthwise size = depthwise_size(attributes, (*in)[3 + kDX]);
  const int n = threads();
  char* memory = lend(resource, depthwise(T()).bytes(size, n));
  depthwise(T()).backward(size, n, memory, depthwise_inputs<T>(attributes, in, 3),
                          (*in)[3 + kDWeight].data<T>(), (*in)[11].data<T>(),
                          (*in)[12].data<T>(), (*in)[0].data<T>(), (*out)[kDX].data<T>(),
                          (*out)[kDWeight].data<T>(), (*out)[kDGamma].data<T>(),
                          (*out)[kDBeta].data<T>(), (*out)[kDSlope].data<T>());
  for (int i : {kDRunningMean, kDRunningVariance})
    for (int64_t c = 0; c < (*out)[i].size(); ++c) (*out)[i].data<T>()[c] = 0;
  return MX_SUCCESS;
}

REGISTER_OP(face_depthwise_norm)
    .setForward(by_type<depthwise_forward<float>, depthwise_forward<double>>, "cpu")
    .setBackward(by_type<depthwise_backward<float>, depthwise_backward<double>>, "cpu")
    .setParseAttrs(depthwise_attributes)
    .setInferType(same_type)
    .setInferShape(depthwise_shapes)
    .setMutateInputs(depthwise_mutates);

}  // namespace

// The name of the level in use, for logs and tests.
extern "C" const char* face_ops_level() { return face::kernels().level; }

MXReturnValue initialize(int version) {
  if (version < 10700) return fail("MXNet 1.7 or newer is needed");
  return MX_SUCCESS;
}
