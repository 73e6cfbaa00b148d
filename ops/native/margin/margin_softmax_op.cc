// SPDX-License-Identifier: Apache-2.0
// MXNet operator of the margin softmax. Inputs: embedding (B, E), class centres (C, E), label, psi
// and slope, each (B,). With columns=1 also the threshold (B,) and the six numbers of
// face::Columns.
#include "operators.h"
#ifdef FACE_GPU
#include "gpu/mxnet_operators.h"
#endif

namespace {

enum { kEmbedding, kCentres, kLabel, kPsi, kSlope, kInputs };
constexpr int kThreshold = kInputs, kColumns = kThreshold + 1;
enum { kLoss, kCosine, kMaximum, kTotal, kPull, kShare, kOutputs };
using Sizes = std::vector<unsigned int>;

const face::MarginSoftmaxKernels<float>& of(float) { return face::kernels().margin_softmax_float; }
const face::MarginSoftmaxKernels<double>& of(double) {
  return face::kernels().margin_softmax_double;
}

int64_t integer(const Attributes& attributes, const char* name, int64_t fallback) {
  return attributes.count(name) ? std::stoll(attributes.at(name)) : fallback;
}

bool has_columns(const Attributes& attributes) { return integer(attributes, "columns", 0); }

int input_count(const Attributes& attributes) {
  return kInputs + (has_columns(attributes) ? 2 : 0);
}

MXReturnValue margin_softmax_attributes(const Attributes& attributes, int* inputs, int* outputs) {
  if (!attributes.count("scale"))
    return fail("face_margin_softmax: scale is required, got none; pass it");
  const int64_t group = integer(attributes, "group", 1);
  if (group < 1 || group > 96)
    return fail("face_margin_softmax: group must be 1 to 96, got " + std::to_string(group) +
                "; use fewer centres per class");
  *inputs = input_count(attributes);
  *outputs = kOutputs;
  return MX_SUCCESS;
}

MXReturnValue margin_softmax_shapes(const Attributes& attributes, Shapes* in, Shapes* out) {
  const auto& embedding = (*in)[kEmbedding];
  const auto& centres = (*in)[kCentres];
  if (embedding.size() != 2 || centres.size() != 2 || embedding[1] != centres[1])
    return fail("face_margin_softmax: embedding must be (B, E) and class centres (C, E), got " +
                shape_text(embedding) + " and " + shape_text(centres) + "; reshape them");
  const Sizes rows = {embedding[0]};
  for (int i : {kLabel, kPsi, kSlope}) {
    if ((*in)[i].empty()) (*in)[i] = rows;
    if ((*in)[i] != rows)
      return fail("face_margin_softmax: label, psi and slope must be (B,), got " +
                  shape_text((*in)[i]) + "; reshape them");
  }
  if (centres[0] % integer(attributes, "group", 1))
    return fail(
        "face_margin_softmax: the number of class centres must be a multiple of group, got " +
        shape_text(centres) + "; add centres");
  if (in->size() > kColumns) {
    (*in)[kThreshold] = rows;
    (*in)[kColumns] = {6};
  }
  for (int i : {kLoss, kCosine, kMaximum, kTotal}) (*out)[i] = rows;
  (*out)[kPull] = embedding;
  (*out)[kShare] = {centres[0]};
  return MX_SUCCESS;
}

template <typename T>
face::MarginSoftmax<T> margin_softmax_inputs(const Attributes& attributes, MXTensor* tensors) {
  face::MarginSoftmax<T> in = {tensors[kEmbedding].shape[0],
                               tensors[kEmbedding].shape[1],
                               tensors[kCentres].shape[0],
                               tensors[kEmbedding].data<T>(),
                               tensors[kCentres].data<T>(),
                               tensors[kLabel].data<T>(),
                               tensors[kPsi].data<T>(),
                               tensors[kSlope].data<T>(),
                               static_cast<T>(number(attributes, "scale"))};
  in.unit_rows = integer(attributes, "unit_rows", 1);
  in.unit_columns = integer(attributes, "unit_columns", 1);
  in.group = integer(attributes, "group", 1);
  in.squares = integer(attributes, "squares", 0);
  in.pulls = integer(attributes, "pulls", 1);
  if (has_columns(attributes)) {
    const T* to = tensors[kColumns].data<T>();
    in.columns = {tensors[kThreshold].data<T>(), to[0], to[1], to[2], to[3], to[4], to[5]};
  }
  return in;
}

template <typename T>
MXReturnValue margin_softmax_forward(const Attributes& attributes, Tensors* in, Tensors* out,
                                     const OpResource& resource) {
  const auto inputs = margin_softmax_inputs<T>(attributes, in->data());
  for (int64_t b = 0; b < inputs.B; ++b) {
    const T label = inputs.label[b];
    if (!(label >= -1 && label < inputs.C) || label != std::floor(label))
      return fail("head: the label of row " + std::to_string(b) + " must be one of " +
                  std::to_string(inputs.C) + " classes, got " + std::to_string(label) +
                  "; use 0 to C - 1, or -1 if another shard has the class");
  }
  const int n = threads();
  char* workspace = workspace_of(resource, of(T()).bytes(inputs.B, inputs.D, n));
  if (!workspace) return workspace_too_large();
  MXTensor* to = out->data();
  of(T()).forward(inputs, n, workspace,
                  {to[kLoss].data<T>(), to[kCosine].data<T>(), to[kMaximum].data<T>(),
                   to[kTotal].data<T>(), to[kPull].data<T>(), to[kShare].data<T>()});
  return MX_SUCCESS;
}

// `in` holds the gradients of the outputs, the inputs and the outputs. Only the loss has a
// gradient.
template <typename T>
MXReturnValue margin_softmax_backward(const Attributes& attributes, Tensors* in, Tensors* out,
                                      const OpResource& resource) {
  const auto inputs = margin_softmax_inputs<T>(attributes, in->data() + kOutputs);
  const int given = input_count(attributes);
  MXTensor* results = in->data() + kOutputs + given;
  const T *gradient = (*in)[kLoss].data<T>(), *pull = results[kPull].data<T>();
  const int n = threads();
  char* workspace = workspace_of(resource, of(T()).bytes(inputs.B, inputs.D, n));
  if (!workspace) return workspace_too_large();
  of(T()).backward(inputs, n, workspace,
                   {results[kCosine].data<T>(), results[kMaximum].data<T>(),
                    results[kTotal].data<T>(), results[kShare].data<T>()},
                   gradient, (*out)[kCentres].data<T>());
  T* embedding_gradient = (*out)[kEmbedding].data<T>();
  for (int64_t i = 0; i < inputs.B * inputs.D; ++i)
    embedding_gradient[i] = gradient[i / inputs.D] * pull[i];
  for (int i = kLabel; i < given; ++i)
    for (int64_t n = 0; n < (*out)[i].shape[0]; ++n) (*out)[i].data<T>()[n] = 0;
  return MX_SUCCESS;
}

REGISTER_OP(face_margin_softmax)
    .setForward(by_type<margin_softmax_forward<float>, margin_softmax_forward<double>>, "cpu")
    .setBackward(by_type<margin_softmax_backward<float>, margin_softmax_backward<double>>, "cpu")
#ifdef FACE_GPU
    .setForward(
        by_type<on_gpu::margin_softmax_forward<float>, on_gpu::margin_softmax_forward<double>>,
        "gpu")
    .setBackward(
        by_type<on_gpu::margin_softmax_backward<float>, on_gpu::margin_softmax_backward<double>>,
        "gpu")
#endif
    .setParseAttrs(margin_softmax_attributes)
    .setInferType(same_type)
    .setInferShape(margin_softmax_shapes);

// ---- Gradient of the class centres for given maxima and totals, which cover the classes of all
// shards. Inputs: those of the forward, cosine, maximum and total (B,), share (C,) and the gradient
// of each loss (B,). Output: (C, E).

constexpr int kGradientInputs = 5;  // cosine, maximum, total, share, gradient of the loss

MXReturnValue centres_attributes(const Attributes& attributes, int* inputs, int* outputs) {
  const MXReturnValue found = margin_softmax_attributes(attributes, inputs, outputs);
  *inputs += kGradientInputs;
  *outputs = 1;
  return found;
}

MXReturnValue centres_shapes(const Attributes& attributes, Shapes* in, Shapes* out) {
  const int given = input_count(attributes);
  Shapes first(in->begin(), in->begin() + given), results(kOutputs);
  const MXReturnValue found = margin_softmax_shapes(attributes, &first, &results);
  if (found != MX_SUCCESS) return found;
  const Shapes expected = {results[kCosine], results[kMaximum], results[kTotal], results[kShare],
                           results[kLoss]};
  for (int i = 0; i < kGradientInputs; ++i)
    if ((*in)[given + i] != expected[i])
      return fail(
          "face_margin_softmax_centres: cosine, maximum, total and gradient must be (B,), share "
          "(C,), got " +
          shape_text((*in)[given + i]) + "; reshape it");
  (*out)[0] = first[kCentres];
  return MX_SUCCESS;
}

template <typename T>
MXReturnValue centres_gradient(const Attributes& attributes, Tensors* in, Tensors* out,
                               const OpResource& resource) {
  const auto inputs = margin_softmax_inputs<T>(attributes, in->data());
  MXTensor* more = in->data() + input_count(attributes);
  const int n = threads();
  char* workspace = workspace_of(resource, of(T()).bytes(inputs.B, inputs.D, n));
  if (!workspace) return workspace_too_large();
  of(T()).backward(
      inputs, n, workspace,
      {more[0].data<T>(), more[1].data<T>(), more[2].data<T>(), more[3].data<T>()},
      more[4].data<T>(), (*out)[0].data<T>());
  return MX_SUCCESS;
}

REGISTER_OP(face_margin_softmax_centres)
    .setForward(by_type<centres_gradient<float>, centres_gradient<double>>, "cpu")
#ifdef FACE_GPU
    .setForward(by_type<on_gpu::centres_gradient<float>, on_gpu::centres_gradient<double>>, "gpu")
#endif
    .setParseAttrs(centres_attributes)
    .setInferType(same_type)
    .setInferShape(centres_shapes);

// ---- SGD step on the class centres, which replaces their gradient. Inputs: those of the forward,
// four of its outputs, velocity (C, E) and learning rate (1,). Modifies centres and velocity.

enum { kStepCosine = kInputs, kStepMaximum, kStepTotal, kStepShare, kVelocity, kRate, kStepInputs };

MXReturnValue update_attributes(const Attributes& attributes, int* inputs, int* outputs) {
  for (const char* name : {"scale", "momentum", "weight_decay"})
    if (!attributes.count(name))
      return fail(std::string("face_margin_softmax_update: ") + name +
                  " is required, got none; pass it");
  *inputs = kStepInputs;
  *outputs = 1;
  return MX_SUCCESS;
}

MXReturnValue update_shapes(const Attributes& attributes, Shapes* in, Shapes* out) {
  Shapes first(in->begin(), in->begin() + kInputs), results(kOutputs);
  const MXReturnValue found = margin_softmax_shapes(attributes, &first, &results);
  if (found != MX_SUCCESS) return found;
  const Shapes expected = {results[kCosine], results[kMaximum], results[kTotal],
                           results[kShare],  first[kCentres],   {1}};
  for (int i = kInputs; i < kStepInputs; ++i)
    if ((*in)[i] != expected[i - kInputs])
      return fail(
          "face_margin_softmax_update: cosine, maximum and total must be (B,), share (C,), "
          "velocity (C, E), rate (1,), got " +
          shape_text((*in)[i]) + "; reshape it");
  (*out)[0] = {1};
  return MX_SUCCESS;
}

MXReturnValue update_mutates(const Attributes&, std::vector<int>* inputs) {
  *inputs = {kCentres, kVelocity};
  return MX_SUCCESS;
}

template <typename T>
MXReturnValue update(const Attributes& attributes, Tensors* in, Tensors* out,
                     const OpResource& resource) {
  MXTensor* tensors = in->data();
  const auto inputs = margin_softmax_inputs<T>(attributes, tensors);
  const int n = threads();
  char* workspace = workspace_of(resource, of(T()).bytes(inputs.B, inputs.D, n));
  if (!workspace) return workspace_too_large();
  const T rate = tensors[kRate].data<T>()[0];
  of(T()).update(inputs, n, workspace,
                 {tensors[kStepCosine].data<T>(), tensors[kStepMaximum].data<T>(),
                  tensors[kStepTotal].data<T>(), tensors[kStepShare].data<T>()},
                 {rate, static_cast<T>(number(attributes, "momentum")),
                  static_cast<T>(number(attributes, "weight_decay")), tensors[kCentres].data<T>(),
                  tensors[kVelocity].data<T>()});
  (*out)[0].data<T>()[0] = rate;
  return MX_SUCCESS;
}

REGISTER_OP(face_margin_softmax_update)
    .setForward(by_type<update<float>, update<double>>, "cpu")
#ifdef FACE_GPU
    .setForward(
        by_type<on_gpu::margin_softmax_update<float>, on_gpu::margin_softmax_update<double>>, "gpu")
#endif
    .setParseAttrs(update_attributes)
    .setInferType(same_type)
    .setInferShape(update_shapes)
    .setMutateInputs(update_mutates);

}  // namespace
