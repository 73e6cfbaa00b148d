// SPDX-License-Identifier: Apache-2.0
// MXNet operator of the fused depthwise 3x3 convolution, batch normalisation and PReLU. Inputs: x
// (N, C, H, W), weight (C, 1, 3, 3), gamma, beta, running mean, running variance and slope, each
// (C,). Outputs: y, mean and 1 / standard deviation (C,).
#include "operators.h"

namespace {

enum { kDX, kDWeight, kDGamma, kDBeta, kDRunningMean, kDRunningVariance, kDSlope };

MXReturnValue depthwise_attributes(const Attributes& attributes, int* inputs, int* outputs) {
  for (const char* name : {"stride", "epsilon", "momentum"})
    if (!attributes.count(name))
      return fail(std::string("face_depthwise_norm: ") + name + " is required, got none; pass it");
  *inputs = 7;
  *outputs = 3;
  return MX_SUCCESS;
}

MXReturnValue depthwise_shapes(const Attributes& attributes, Shapes* in, Shapes* out) {
  const auto& x = (*in)[kDX];
  if (x.size() != 4)
    return fail("face_depthwise_norm: x must be (N, C, H, W), got " + shape_text(x) +
                "; reshape it");
  const unsigned int step = static_cast<unsigned int>(number(attributes, "stride"));
  const std::vector<unsigned int> channels = {x[1]}, nine = {x[1], 1, 3, 3};
  for (size_t i = 1; i < in->size(); ++i) {
    const auto& expected = i == kDWeight ? nine : channels;
    if ((*in)[i].empty()) (*in)[i] = expected;
    if ((*in)[i] != expected)
      return fail("face_depthwise_norm: weight must be (C, 1, 3, 3) and all others (C,), got " +
                  shape_text((*in)[i]) + "; reshape them");
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
  char* workspace = workspace_of(resource, depthwise(T()).bytes(size, n));
  if (!workspace) return workspace_too_large();
  depthwise(T()).forward(size, n, workspace, depthwise_inputs<T>(attributes, in, 0),
                         (*in)[kDWeight].data<T>(), static_cast<T>(number(attributes, "momentum")),
                         (*out)[0].data<T>(), (*out)[1].data<T>(), (*out)[2].data<T>(),
                         (*in)[kDRunningMean].data<T>(), (*in)[kDRunningVariance].data<T>());
  return MX_SUCCESS;
}

// `in` holds the gradients of the 3 outputs, the 7 inputs and the 3 outputs.
template <typename T>
MXReturnValue depthwise_backward(const Attributes& attributes, Tensors* in, Tensors* out,
                                 const OpResource& resource) {
  const face::Depthwise size = depthwise_size(attributes, (*in)[3 + kDX]);
  const int n = threads();
  char* workspace = workspace_of(resource, depthwise(T()).bytes(size, n));
  if (!workspace) return workspace_too_large();
  depthwise(T()).backward(size, n, workspace, depthwise_inputs<T>(attributes, in, 3),
                          (*in)[3 + kDWeight].data<T>(), (*in)[11].data<T>(), (*in)[12].data<T>(),
                          (*in)[0].data<T>(), (*out)[kDX].data<T>(), (*out)[kDWeight].data<T>(),
                          (*out)[kDGamma].data<T>(), (*out)[kDBeta].data<T>(),
                          (*out)[kDSlope].data<T>());
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
