// SPDX-License-Identifier: Apache-2.0
// MXNet operators for arrays on a GPU, registered next to the CPU operators (operators.h, *_op.cc).
// Attributes, inputs and outputs are the same. The C++ compiler compiles this file; only the
// sources behind gpu.h use CUDA.
#pragma once
#include "../operators.h"
#include "gpu.h"

namespace on_gpu {

namespace gpu = face::gpu;

inline gpu::Stream stream(const OpResource& resource) {
  return static_cast<gpu::Stream>(resource.get_cuda_stream());
}

// Returns a workspace from MXNet. Call it once per operator call: a second request invalidates the
// first workspace.
inline void* workspace_of(const OpResource& resource, int64_t bytes) {
  const int64_t total = bytes + gpu::kAlignment;
  char* memory = static_cast<char*>(resource.alloc_gpu(static_cast<int>(total)));
  const uintptr_t beyond = reinterpret_cast<uintptr_t>(memory) % gpu::kAlignment;
  return memory + (gpu::kAlignment - beyond) % gpu::kAlignment;
}

// Converts the error of a GPU function, or null, to MXNet's return value.
inline MXReturnValue result_of(const char* name, const char* fault) {
  return fault ? fail(std::string(name) + ": the GPU cannot run the operator, got: " + fault)
               : MX_SUCCESS;
}

template <typename T>
T* data(MXTensor& tensor) {
  return tensor.data<T>();
}

// ---- Margin softmax. Inputs: embedding, centres, label, psi, slope. Outputs:
// MarginSoftmaxResults.

constexpr int kHeadInputs = 5, kHeadOutputs = 6;

template <typename T>
gpu::MarginSoftmax<T> head_inputs(const Attributes& attributes, MXTensor* t) {
  return {t[0].shape[0], t[0].shape[1], t[1].shape[0],
          data<T>(t[0]), data<T>(t[1]), data<T>(t[2]),
          data<T>(t[3]), data<T>(t[4]), static_cast<T>(number(attributes, "scale"))};
}

template <typename T>
gpu::MarginSoftmaxResults<T> head_results(MXTensor* t) {
  return {data<T>(t[0]), data<T>(t[1]), data<T>(t[2]), data<T>(t[3]), data<T>(t[4]), data<T>(t[5])};
}

template <typename T>
void* head_workspace(const OpResource& resource, const gpu::MarginSoftmax<T>& in, bool update) {
  return workspace_of(resource, gpu::margin_softmax_bytes<T>(in.B, in.D, in.C, update));
}

template <typename T>
MXReturnValue margin_softmax_forward(const Attributes& attributes, Tensors* in, Tensors* out,
                                     const OpResource& resource) {
  for (const char* name : {"unit_rows", "unit_columns", "group", "columns", "squares", "pulls"})
    if (attributes.count(name))
      return fail(std::string("face_margin_softmax: ") + name +
                  " has no GPU kernel, got it on a GPU; use run.operators=plain");
  const auto inputs = head_inputs<T>(attributes, in->data());
  return result_of(
      "face_margin_softmax",
      gpu::margin_softmax_forward<T>(inputs, head_results<T>(out->data()),
                                     head_workspace(resource, inputs, false), stream(resource)));
}

// `in` holds the gradients of the outputs, the inputs and the outputs. Only the loss has a
// gradient.
template <typename T>
MXReturnValue margin_softmax_backward(const Attributes& attributes, Tensors* in, Tensors* out,
                                      const OpResource& resource) {
  const auto inputs = head_inputs<T>(attributes, in->data() + kHeadOutputs);
  const auto results = head_results<T>(in->data() + kHeadOutputs + kHeadInputs);
  const char* fault = gpu::margin_softmax_backward<T>(
      inputs, results, data<T>((*in)[0]), data<T>((*out)[0]), data<T>((*out)[1]),
      head_workspace(resource, inputs, false), stream(resource));
  for (int i = 2; i < kHeadInputs && !fault; ++i)
    fault = gpu::fill<T>(data<T>((*out)[i]), inputs.B, 0, stream(resource));
  return result_of("face_margin_softmax", fault);
}

// `in` holds the inputs, then cosine, maximum, total, share and the gradient of each loss.
template <typename T>
MXReturnValue centres_gradient(const Attributes& attributes, Tensors* in, Tensors* out,
                               const OpResource& resource) {
  MXTensor* more = in->data() + kHeadInputs;
  const auto inputs = head_inputs<T>(attributes, in->data());
  gpu::MarginSoftmaxResults<T> results{};
  results.maximum = data<T>(more[1]);
  results.total = data<T>(more[2]);
  const char* fault = gpu::margin_softmax_backward<T>(
      inputs, results, data<T>(more[4]), nullptr, data<T>((*out)[0]),
      head_workspace(resource, inputs, false), stream(resource));
  return result_of("face_margin_softmax_centres", fault);
}

// `in` holds the inputs, then cosine, maximum, total, share, velocity and rate.
template <typename T>
MXReturnValue margin_softmax_update(const Attributes& attributes, Tensors* in, Tensors* out,
                                    const OpResource& resource) {
  MXTensor* more = in->data() + kHeadInputs;
  const auto inputs = head_inputs<T>(attributes, in->data());
  gpu::MarginSoftmaxResults<T> results{};
  results.maximum = data<T>(more[1]);
  results.total = data<T>(more[2]);
  const gpu::Step<T> step{data<T>((*in)[1]),
                          data<T>(more[4]),
                          data<T>(more[5]),
                          static_cast<T>(number(attributes, "momentum")),
                          static_cast<T>(number(attributes, "weight_decay")),
                          T(1) / T(inputs.B)};
  const char* fault = gpu::margin_softmax_update<T>(
      inputs, results, step, head_workspace(resource, inputs, true), stream(resource));
  // MXNet requires an output; nothing reads it.
  if (!fault) fault = gpu::fill<T>(data<T>((*out)[0]), 1, 0, stream(resource));
  return result_of("face_margin_softmax_update", fault);
}

// ---- PReLU and batch normalisation. Inputs of PReLU: x, slope. Inputs of batch normalisation: x,
// gamma, beta, running mean, running variance and, with prelu=True, slope.

template <typename T>
void* sums_workspace(const OpResource& resource, const gpu::Planes& size) {
  return workspace_of(resource, gpu::activation_bytes<T>(size));
}

template <typename T>
MXReturnValue prelu_forward(const Attributes&, Tensors* in, Tensors* out,
                            const OpResource& resource) {
  return result_of("face_prelu",
                   gpu::prelu_forward<T>(planes((*in)[0]), data<T>((*in)[0]), data<T>((*in)[1]),
                                         data<T>((*out)[0]), stream(resource)));
}

// `in` holds the gradient of the output, the inputs and the output.
template <typename T>
MXReturnValue prelu_backward(const Attributes&, Tensors* in, Tensors* out,
                             const OpResource& resource) {
  const gpu::Planes size = planes((*in)[1]);
  return result_of("face_prelu",
                   gpu::prelu_backward<T>(size, data<T>((*in)[1]), data<T>((*in)[2]),
                                          data<T>((*in)[0]), data<T>((*out)[0]), data<T>((*out)[1]),
                                          sums_workspace<T>(resource, size), stream(resource)));
}

template <typename T>
gpu::BatchNorm<T> norm_inputs(const Attributes& attributes, MXTensor* t) {
  const bool prelu = attributes.at("prelu") == "True";
  return {data<T>(t[0]), data<T>(t[1]), data<T>(t[2]), prelu ? data<T>(t[5]) : nullptr,
          static_cast<T>(number(attributes, "epsilon"))};
}

template <typename T>
MXReturnValue batch_norm_forward(const Attributes& attributes, Tensors* in, Tensors* out,
                                 const OpResource& resource) {
  const gpu::Planes size = planes((*in)[0]);
  return result_of("face_batch_norm",
                   gpu::batch_norm_forward<T>(
                       size, norm_inputs<T>(attributes, in->data()),
                       static_cast<T>(number(attributes, "momentum")), data<T>((*out)[0]),
                       data<T>((*out)[1]), data<T>((*out)[2]), data<T>((*in)[3]), data<T>((*in)[4]),
                       sums_workspace<T>(resource, size), stream(resource)));
}

// `in` holds the gradients of the 3 outputs, the inputs and the 3 outputs.
template <typename T>
MXReturnValue batch_norm_backward(const Attributes& attributes, Tensors* in, Tensors* out,
                                  const OpResource& resource) {
  const gpu::Planes size = planes((*in)[3]);
  const auto inputs = norm_inputs<T>(attributes, in->data() + 3);
  MXTensor* results = in->data() + 3 + out->size();
  const char* fault = gpu::batch_norm_backward<T>(
      size, inputs, data<T>(results[1]), data<T>(results[2]), data<T>((*in)[0]), data<T>((*out)[0]),
      data<T>((*out)[1]), data<T>((*out)[2]), inputs.slope ? data<T>((*out)[5]) : nullptr,
      sums_workspace<T>(resource, size), stream(resource));
  for (int i = 3; i < 5 && !fault; ++i)  // the running statistics have no gradient
    fault = gpu::fill<T>(data<T>((*out)[i]), size.C, 0, stream(resource));
  return result_of("face_batch_norm", fault);
}

}  // namespace on_gpu
