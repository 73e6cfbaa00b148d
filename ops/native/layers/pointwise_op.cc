// SPDX-License-Identifier: Apache-2.0
// MXNet operator of the 1x1 convolution. Inputs: x (N, inputs, ...), weight (outputs, inputs, 1,
// 1).
#include "operators.h"

namespace {

MXReturnValue pointwise_attributes(const Attributes&, int* inputs, int* outputs) {
  *inputs = 2;
  *outputs = 1;
  return MX_SUCCESS;
}

MXReturnValue pointwise_shapes(const Attributes&, Shapes* in, Shapes* out) {
  const auto &x = (*in)[0], &weight = (*in)[1];
  if (x.size() < 3 || weight.size() < 2 || weight[1] != x[1])
    return fail("face_pointwise: x must be (N, C, ...) and weight (outputs, C, 1, 1), got " +
                shape_text(x) + " and " + shape_text(weight) + "; reshape them");
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
  char* workspace = workspace_of(resource, pointwise(T()).bytes(size, n));
  if (!workspace) return workspace_too_large();
  pointwise(T()).forward(size, n, workspace, (*in)[0].data<T>(), (*in)[1].data<T>(),
                         (*out)[0].data<T>());
  return MX_SUCCESS;
}

// `in` holds the gradient of the output, the 2 inputs and the output.
template <typename T>
MXReturnValue pointwise_backward(const Attributes&, Tensors* in, Tensors* out,
                                 const OpResource& resource) {
  const face::Pointwise size = pointwise_size((*in)[1], (*in)[2]);
  const int n = threads();
  char* workspace = workspace_of(resource, pointwise(T()).bytes(size, n));
  if (!workspace) return workspace_too_large();
  pointwise(T()).backward(size, n, workspace, (*in)[1].data<T>(), (*in)[2].data<T>(),
                          (*in)[0].data<T>(), (*out)[0].data<T>(), (*out)[1].data<T>());
  return MX_SUCCESS;
}

REGISTER_OP(face_pointwise)
    .setForward(by_type<pointwise_forward<float>, pointwise_forward<double>>, "cpu")
    .setBackward(by_type<pointwise_backward<float>, pointwise_backward<double>>, "cpu")
    .setParseAttrs(pointwise_attributes)
    .setInferType(same_type)
    .setInferShape(pointwise_shapes);

}  // namespace
