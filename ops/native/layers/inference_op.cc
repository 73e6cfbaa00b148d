// SPDX-License-Identifier: Apache-2.0
// MXNet operators of layers in inference, which have no gradient. Inputs: x (N, C, ...); the weight
// of the convolution, if there is one; gamma, beta, running mean and running variance, each (C,);
// and with prelu=True the slope (C,). C is the number of output channels.
#include "operators.h"

namespace {

enum class Layer { kNorm, kPointwise, kDepthwise };

template <Layer layer>
constexpr int kWeights = layer == Layer::kNorm ? 0 : 1;
template <Layer layer>
constexpr const char* kName = layer == Layer::kNorm        ? "face_frozen_norm"
                              : layer == Layer::kPointwise ? "face_frozen_pointwise"
                                                           : "face_frozen_depthwise";

const face::InferenceKernels<float>& inference(float) { return face::kernels().inference_float; }
const face::InferenceKernels<double>& inference(double) { return face::kernels().inference_double; }

template <Layer layer>
MXReturnValue frozen_attributes(const Attributes& attributes, int* inputs, int* outputs) {
  for (const char* name : {"prelu", "epsilon", "stride"}) {
    const bool is_needed = layer == Layer::kDepthwise || std::string(name) != "stride";
    if (is_needed && !attributes.count(name))
      return fail(std::string(kName<layer>) + ": " + name + " is required, got none; pass it");
  }
  *inputs = 5 + kWeights<layer> + (has_prelu(attributes) ? 1 : 0);
  *outputs = 1;
  return MX_SUCCESS;
}

template <Layer layer>
MXReturnValue frozen_shapes(const Attributes& attributes, Shapes* in, Shapes* out) {
  const auto& x = (*in)[0];
  const size_t sides = layer == Layer::kNorm ? 2 : layer == Layer::kPointwise ? 3 : 4;
  if (layer == Layer::kDepthwise ? x.size() != sides : x.size() < sides)
    return fail(std::string(kName<layer>) + ": x must be (N, C, H, W), got " + shape_text(x) +
                "; reshape it");
  (*out)[0] = x;
  if (layer == Layer::kPointwise) {
    const auto& weight = (*in)[1];
    if (weight.size() < 2 || weight[1] != x[1])
      return fail(std::string(kName<layer>) + ": weight must be (outputs, C, 1, 1), got " +
                  shape_text(weight) + " for x " + shape_text(x) + "; reshape it");
    (*out)[0][1] = weight[0];
  }
  if (layer == Layer::kDepthwise) {
    const unsigned int step = static_cast<unsigned int>(number(attributes, "stride"));
    const std::vector<unsigned int> nine = {x[1], 1, 3, 3};
    if ((*in)[1].empty()) (*in)[1] = nine;
    if ((*in)[1] != nine)
      return fail(std::string(kName<layer>) + ": weight must be (C, 1, 3, 3), got " +
                  shape_text((*in)[1]) + " for x " + shape_text(x) + "; reshape it");
    for (int side : {2, 3}) (*out)[0][side] = (x[side] + step - 1) / step;
  }
  const std::vector<unsigned int> channels = {(*out)[0][1]};
  for (size_t i = 1 + kWeights<layer>; i < in->size(); ++i) {
    if ((*in)[i].empty()) (*in)[i] = channels;
    if ((*in)[i] != channels)
      return fail(std::string(kName<layer>) +
                  ": gamma, beta, statistics and slope must be (C,), got " +
                  shape_text((*in)[i]) + "; reshape them");
  }
  return MX_SUCCESS;
}

template <Layer layer, typename T>
MXReturnValue frozen_forward(const Attributes& attributes, Tensors* in, Tensors* out,
                             const OpResource& resource) {
  MXTensor* values = in->data() + 1 + kWeights<layer>;
  const face::FrozenNorm<T> norm = {
      values[0].data<T>(),
      values[1].data<T>(),
      values[2].data<T>(),
      values[3].data<T>(),
      has_prelu(attributes) ? values[4].data<T>() : nullptr,
      static_cast<T>(number(attributes, "epsilon"))};
  const auto& kernels = inference(T());
  MXTensor& x = (*in)[0];
  const int n = threads();
  T* y = (*out)[0].data<T>();
  if constexpr (layer == Layer::kNorm) {
    kernels.norm(planes(x), n, x.data<T>(), norm, y);
  } else if constexpr (layer == Layer::kPointwise) {
    const face::Planes size = planes(x);
    const face::Pointwise sizes = {size.N, size.C, (*in)[1].shape[0], size.P};
    char* workspace = workspace_of(resource, kernels.pointwise_bytes(sizes, n));
    if (!workspace) return workspace_too_large();
    kernels.pointwise(sizes, n, workspace, x.data<T>(), (*in)[1].data<T>(), norm, y);
  } else {
    const face::Depthwise sizes = {x.shape[0], x.shape[1], x.shape[2], x.shape[3],
                                   static_cast<int64_t>(number(attributes, "stride"))};
    char* workspace = workspace_of(resource, kernels.depthwise_bytes(sizes, n));
    if (!workspace) return workspace_too_large();
    kernels.depthwise(sizes, n, workspace, x.data<T>(), (*in)[1].data<T>(), norm, y);
  }
  return MX_SUCCESS;
}

// Gluon requires a gradient of every operator of a graph, even if no call needs the gradient.
template <Layer layer>
MXReturnValue no_gradient(const Attributes&, Tensors*, Tensors*, const OpResource&) {
  return fail(std::string(kName<layer>) +
              ": the operator for inference has no gradient, got a backward pass; use the plain "
              "operators");
}

#define REGISTER_FROZEN(name, layer)                                                         \
  REGISTER_OP(name)                                                                          \
      .setForward(by_type<frozen_forward<layer, float>, frozen_forward<layer, double>>, "cpu") \
      .setBackward(no_gradient<layer>, "cpu")                                                \
      .setParseAttrs(frozen_attributes<layer>)                                               \
      .setInferType(same_type)                                                               \
      .setInferShape(frozen_shapes<layer>)

REGISTER_FROZEN(face_frozen_norm, Layer::kNorm);
REGISTER_FROZEN(face_frozen_pointwise, Layer::kPointwise);
REGISTER_FROZEN(face_frozen_depthwise, Layer::kDepthwise);

}  // namespace
