// SPDX-License-Identifier: Apache-2.0
// What MXNet calls for arrays on a GPU. Attributes, inputs and outputs are those of the functions
// for the CPU, beside which these are registered (operators.h, *_op.cc), compiled by the same C++
// compiler: CUDA begins behind gpu.h.
#pragma once
#include "../operators.h"
#include "gpu.h"

namespace on_gpu {

namespace gpu = face::gpu;

inline gpu::Stream stream(const OpResource& resource) {
  return static_cast<gpu::Stream>(resource.get_cuda_stream());
}

// Once for each call of an operator: MXNet lends one piece of memory, which a second request moves.
inline void* lend(const OpResource& resource, int64_t bytes) {
  const int64_t whole = bytes + gpu::kAlignment;
  char* memory = static_cast<char*>(resource.alloc_gpu(static_cast<int>(whole)));
  const uintptr_t beyond = reinterpret_cast<uintptr_t>(memory) % gpu::kAlignment;
  return memory + (gpu::kAlignment - beyond) % gpu::kAlignment;
}

inline MXReturnValue done(const char* name, const char* fault) {
  return fault ? fail(std::string(name) + ": the GPU refuses it, got: " + fault) : MX_SUCCESS;
}

template <typename T>
T* data(MXTensor& tensor) {
  return tensor.data<T>();
}

// ---- margin softmax: embedding, centres, label, psi, slope; gives what MarginSoftmaxResults holds

constexpr int kHeadInputs = 5, kHeadOutputs = 6;

template <typename T>
gpu::MarginSoftmax<T> head_inputs(const Attributes& attributes, MXTensor* t) {
  return {t[0].shape[0], t[0].shape[1], t[1].shape[0], data<T>(t[0]), data<T>(t[1]),
          data<T>(t[2]), data<T>(t[3]), data<T>(t[4]), static_cast<T>(number(attributes, "scale"))};
}

template <typename T>
gpu::MarginSoftmaxResults<T> head_results(MXTensor* t) {
  return {data<T>(t[0]), data<T>(t[1]), data<T>(t[2]),
          data<T>(t[3]), data<T>(t[4]), data<T>(t[5])};
}

template <typename T>
void* lend_head(const OpResource& resource, const gpu::MarginSoftmax<T>& in, bool update) {
  return lend(resource, gpu::margin_softmax_bytes<T>(in.B, in.D, in.C, update));
}

template <typename T>
MXReturnValue margin_softmax_forward(const Attributes& attributes, Tensors* in, Tensors* out,
                                     const OpResource& resource) {
  for (const char* name : {"unit_rows", "unit_columns", "group", "columns", "squares", "pulls"})
    if (attributes.count(name))
      return fail(std::string("face_margin_softmax: ") + name + " is for the CPU alone");
  const auto inputs = head_inputs<T>(attributes, in->data());
  return done("face_margin_softmax",
              gpu::margin_softmax_forward<T>(inputs, head_results<T>(out->data()),
                                             lend_head(resource, inputs, false),
                                             stream(resource)));
}

// Gets the gradients of the outputs, the inputs, the outputs. Only the loss has a gradient.
template <typename T>
MXReturnValue margin_softmax_backward(const Attributes& attributes, Tensors* in, Tensors* out,
                                      const OpResource& resource) {
  const auto inputs = head_inputs<T>(attributes, in->data() + kHeadOutputs);
  const auto results = head_results<T>(in->data() + kHeadOutputs + kHeadInputs);
  const char* fault = gpu::margin_softmax_backward<T>(
      inputs, results, data<T>((*in)[0]), data<T>((*out)[0]), data<T>((*out)[1]),
      lend_head(resource, inputs, false), stream(resource));
  for (int i = 2; i < kHeadInputs && !fault; ++i)
    fault = gpu::fill<T>(data<T>((*out)[i]), inputs.B, 0, stream(resource));
  return done("face_margin_softmax", fault);
}

// Inputs, then cosine, maximum, total, share, velocity, rate; gives the rate.
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
      inputs, results, step, lend_head(resource, inputs, true), stream(resource));
  // The output is for MXNet, which wants one; nobody reads it.
  if (!fault) fault = gpu::fill<T>(data<T>((*out)[0]), 1, 0, stream(resource));
  return done("face_margin_softmax_update", fault);
}

// ---- PReLU: x, slope; batch normalisation: x, gamma, beta, running mean and variance, slope

template <typename T>
void* lend_sums(const OpResource& resource, const gpu::Planes& size) {
  return lend(resource, gpu::activation_bytes<T>(size));
}

template <typename T>
MXReturnValue prelu_forward(const Attributes&, Tensors* in, Tensors* out,
                            const OpResource& resource) {
  return done("face_prelu",
              gpu::prelu_forward<T>(planes((*in)[0]), data<T>((*in)[0]), data<T>((*in)[1]),
                                    data<T>((*out)[0]), stream(resource)));
}

// Gets the gradient of the output, the inputs, the output.
template <typename T>
MXReturnValue prelu_backward(const Attributes&, Tensors* in, Tensors* out,
                             const OpResource& resource) {
  const gpu::Planes size = planes((*in)[1]);
  return done("face_prelu",
              gpu::prelu_backward<T>(size, data<T>((*in)[1]), data<T>((*in)[2]),
                                     data<T>((*in)[0]), data<T>((*out)[0]), data<T>((*out)[1]),
                                     lend_sums<T>(resource, size), stream(resource)));
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
  return done("face_batch_norm",
              gpu::batch_norm_forward<T>(
                  size, norm_inputs<T>(attributes, in->data()),
                  static_cast<T>(number(attributes, "momentum")), data<T>((*out)[0]),
                  data<T>((*out)[1]), data<T>((*out)[2]), data<T>((*in)[3]), data<T>((*in)[4]),
                  lend_sums<T>(resource, size), stream(resource)));
}

// Gets the gradients of the 3 outputs, the inputs, the 3 outputs.
template <typename T>
MXReturnValue batch_norm_backward(const Attributes& attributes, Tensors* in, Tensors* out,
                                  const OpResource& resource) {
  const gpu::Planes size = planes((*in)[3]);
  const auto inputs = norm_inputs<T>(attributes, in->data() + 3);
  MXTensor* results = in->data() + 3 + out->size();
  const char* fault = gpu::batch_norm_backward<T>(
      size, inputs, data<T>(results[1]), data<T>(results[2]), data<T>((*in)[0]),
      data<T>((*out)[0]), data<T>((*out)[1]), data<T>((*out)[2]),
      inputs.slope ? data<T>((*out)[5]) : nullptr, lend_sums<T>(resource, size),
      stream(resource));
  for (int i = 3; i < 5 && !fault; ++i)  // the running statistics have no gradient
    fault = gpu::fill<T>(data<T>((*out)[i]), size.C, 0, stream(resource));
  return done("face_batch_norm", fault);
}

}  // namespace on_gpu
