// SPDX-License-Identifier: Apache-2.0
// MXNet operators of PReLU and of batch normalisation. PReLU has the inputs x (N, C, ...), slope
// (C,).
#include "operators.h"
#ifdef FACE_GPU
#include "gpu/mxnet_operators.h"
#endif

namespace {

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
    return fail("face_prelu: x must be (N, C, ...) and slope (C,), got " + shape_text((*in)[0]) +
                " and " + shape_text((*in)[1]) + "; reshape them");
  (*out)[0] = (*in)[0];
  return MX_SUCCESS;
}

template <typename T>
MXReturnValue prelu_forward(const Attributes&, Tensors* in, Tensors* out, const OpResource&) {
  activation(T()).prelu_forward(planes((*in)[0]), threads(), (*in)[0].data<T>(), (*in)[1].data<T>(),
                                (*out)[0].data<T>());
  return MX_SUCCESS;
}

// `in` holds the gradient of the output, the 2 inputs and the output.
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
#ifdef FACE_GPU
    .setForward(by_type<on_gpu::prelu_forward<float>, on_gpu::prelu_forward<double>>, "gpu")
    .setBackward(by_type<on_gpu::prelu_backward<float>, on_gpu::prelu_backward<double>>, "gpu")
#endif
    .setParseAttrs(prelu_attributes)
    .setInferType(same_type)
    .setInferShape(prelu_shapes);

// ---- Batch normalisation in training mode. Inputs: x (N, C, ...), gamma, beta, running mean and
// running variance (C,), and with prelu=True the slope (C,). Outputs: y, mean and 1 / standard
// deviation (C,).

enum { kX, kGamma, kBeta, kRunningMean, kRunningVariance, kPReLU };

MXReturnValue batch_norm_attributes(const Attributes& attributes, int* inputs, int* outputs) {
  for (const char* name : {"prelu", "epsilon", "momentum"})
    if (!attributes.count(name))
      return fail(std::string("face_batch_norm: ") + name + " is required, got none; pass it");
  *inputs = has_prelu(attributes) ? 6 : 5;
  *outputs = 3;
  return MX_SUCCESS;
}

MXReturnValue batch_norm_shapes(const Attributes&, Shapes* in, Shapes* out) {
  if ((*in)[0].size() < 2)
    return fail("face_batch_norm: x must be (N, C, ...), got " + shape_text((*in)[0]) +
                "; reshape it");
  const std::vector<unsigned int> channels = {(*in)[0][1]};
  for (size_t i = 1; i < in->size(); ++i) {
    if ((*in)[i].empty()) (*in)[i] = channels;
    if ((*in)[i] != channels)
      return fail("face_batch_norm: gamma, beta, statistics and slope must be (C,), got " +
                  shape_text((*in)[i]) + "; reshape them");
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

// `in` holds the gradients of the 3 outputs, the inputs and the 3 outputs.
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
#ifdef FACE_GPU
    .setForward(by_type<on_gpu::batch_norm_forward<float>, on_gpu::batch_norm_forward<double>>,
                "gpu")
    .setBackward(by_type<on_gpu::batch_norm_backward<float>, on_gpu::batch_norm_backward<double>>,
                 "gpu")
#endif
    .setParseAttrs(batch_norm_attributes)
    .setInferType(same_type)
    .setInferShape(batch_norm_shapes)
    .setMutateInputs(batch_norm_mutates);

}  // namespace
