// SPDX-License-Identifier: Apache-2.0
// The interface of the CPU kernels: one table of functions for each instruction level.
#pragma once
#include <cstdint>

namespace face {

constexpr int kMaxThreads = 256;

// Reweighting of the score c of each non-target class.  Above the row's threshold the new score is
// (square c + linear) c + constant, with the derivative slope_linear c + slope_constant.  At or
// below it the new score is `rest` times c.
template <typename T>
struct Columns {
  const T* threshold;  // (B,); null: no reweighting
  T square, linear, constant, slope_linear, slope_constant, rest;
};

// Inputs of the margin softmax: B rows, D dimensions, C classes.
template <typename T>
struct MarginSoftmax {
  int64_t B, D, C;
  const T* embedding;  // (B, D)
  const T* centres;    // (C, D)
  const T* label;      // (B,) integers; -1: the target is in another shard of the classes
  const T* psi;        // (B,) cosine of the target with its margin
  const T* slope;      // (B,) d psi / d cosine
  T scale;
  bool unit_rows = true, unit_columns = true;  // whether embeddings and centres are normalised
  int64_t group = 1;  // adjacent centres of one class, of which the nearest gives the logit; the
                      // label is the row of the target's centre
  Columns<T> columns{};
  bool squares = false;  // whether |w|^2 / 2 is subtracted from the inner products, for distances
  bool pulls = true;     // whether forward computes the gradients of the embeddings; else zeros
};

// Outputs of the margin softmax, forward.
template <typename T>
struct MarginSoftmaxResults {
  T* loss;     // (B,)
  T* cosine;   // (B,) of the target, without margin; 0 for a label of -1
  T* maximum;  // (B,) largest logit
  T* total;    // (B,) sum of exp(logit - maximum)
  T* pull;     // (B, D) gradient of each row's loss with respect to the row's embedding
  T* share;    // (C,) upper bound of |sum_b p_bj x_b|, divided by |w_j| if centres are normalised;
               // a huge value for a class that is a target
};

// The outputs of forward that backward reads.
template <typename T>
struct MarginSoftmaxState {
  const T *cosine, *maximum, *total, *share;
};

// One in-place step of SGD with momentum on the class centres.
template <typename T>
struct CentreStep {
  T rate, momentum, decay;
  T* centres;   // (C, D)
  T* velocity;  // (C, D)
};

template <typename T>
struct MarginSoftmaxKernels {
  // Returns the workspace in bytes that each other function needs, aligned to 64 bytes.
  int64_t (*bytes)(int64_t B, int64_t D, int threads);
  void (*forward)(const MarginSoftmax<T>& in, int threads, char* workspace,
                  const MarginSoftmaxResults<T>& out);
  void (*backward)(const MarginSoftmax<T>& in, int threads, char* workspace,
                   const MarginSoftmaxState<T>& state, const T* loss_gradient, T* centres_gradient);
  // Takes the gradient of the mean of the losses.
  void (*update)(const MarginSoftmax<T>& in, int threads, char* workspace,
                 const MarginSoftmaxState<T>& state, const CentreStep<T>& step);
};

// N images, C channels, P pixels of a plane.
struct Planes {
  int64_t N, C, P;
};

template <typename T>
struct BatchNorm {
  const T* x;
  const T* gamma;  // (C,)
  const T* beta;   // (C,)
  const T* slope;  // (C,) of the PReLU that follows; null: no PReLU
  T epsilon;
};

template <typename T>
struct ActivationKernels {
  void (*prelu_forward)(const Planes& size, int threads, const T* x, const T* slope, T* y);
  void (*prelu_backward)(const Planes& size, int threads, const T* x, const T* slope, const T* dy,
                         T* dx, T* dslope);
  void (*batch_norm_forward)(const Planes& size, int threads, const BatchNorm<T>& in, T momentum,
                             T* y, T* mean, T* inverse, T* running_mean, T* running_variance);
  void (*batch_norm_backward)(const Planes& size, int threads, const BatchNorm<T>& in,
                              const T* mean, const T* inverse, const T* dy, T* dx, T* dgamma,
                              T* dbeta, T* dslope);
};

// A 1x1 convolution of N images with P pixels from `inputs` to `outputs` channels.
struct Pointwise {
  int64_t N, inputs, outputs, P;
};

template <typename T>
struct PointwiseKernels {
  int64_t (*bytes)(const Pointwise& size, int threads);
  void (*forward)(const Pointwise& size, int threads, char* workspace, const T* x, const T* weight,
                  T* y);
  void (*backward)(const Pointwise& size, int threads, char* workspace, const T* x, const T* weight,
                   const T* dy, T* dx, T* dweight);
};

// A depthwise 3x3 convolution with padding 1 of N images with C channels of H x W pixels.
struct Depthwise {
  int64_t N, C, H, W, step;
};

template <typename T>
struct DepthwiseKernels {
  int64_t (*bytes)(const Depthwise& size, int threads);
  void (*forward)(const Depthwise& size, int threads, char* workspace, const BatchNorm<T>& in,
                  const T* weight, T momentum, T* y, T* mean, T* inverse, T* running_mean,
                  T* running_variance);
  void (*backward)(const Depthwise& size, int threads, char* workspace, const BatchNorm<T>& in,
                   const T* weight, const T* mean, const T* inverse, const T* dy, T* dx, T* dweight,
                   T* dgamma, T* dbeta, T* dslope);
};

// Batch normalisation with running statistics.
template <typename T>
struct FrozenNorm {
  const T* gamma;     // (C,)
  const T* beta;      // (C,)
  const T* mean;      // (C,)
  const T* variance;  // (C,)
  const T* slope;     // (C,) of the PReLU that follows; null: no PReLU
  T epsilon;
};

// Layers in inference: the normalisation alone, or after a convolution without bias.
template <typename T>
struct InferenceKernels {
  void (*norm)(const Planes& size, int threads, const T* x, const FrozenNorm<T>& norm, T* y);
  int64_t (*pointwise_bytes)(const Pointwise& size, int threads);
  void (*pointwise)(const Pointwise& size, int threads, char* workspace, const T* x,
                    const T* weight, const FrozenNorm<T>& norm, T* y);
  int64_t (*depthwise_bytes)(const Depthwise& size, int threads);
  void (*depthwise)(const Depthwise& size, int threads, char* workspace, const T* x,
                    const T* weight, const FrozenNorm<T>& norm, T* y);
};

// N decoded images (H, W, 3) at the given rows of an array of images.
struct Images {
  int64_t N, H, W;
  const uint8_t* pixels;
  const int64_t* rows;    // (N,)
  const uint8_t* mirror;  // (N,) 1: flip horizontally
  float factor, offset;   // y = x * factor + offset
};

// Status of a JPEG: decoded; needs the fallback decoder, which supports all JPEGs and applies Exif;
// or truncated, that is its entropy-coded data ends before its last pixels.
constexpr uint8_t kDecoded = 0, kFallback = 1, kTruncated = 2;

// N JPEG images of H x W pixels; those longer than max_bytes need the fallback decoder.
struct Jpegs {
  int64_t N, H, W, max_bytes;
  const uint8_t* const* data;  // (N,)
  const int64_t* bytes;        // (N,)
  const uint8_t* mirror;       // (N,) as in Images; planes only
  float factor, offset;
  float* planes;    // (N, 3, H, W), or null
  uint8_t* pixels;  // (N, H, W, 3), or null; both null: check the data and write no pixels
};

struct JpegKernels {
  // Returns the workspace in bytes, aligned to 64 bytes; `begin` initialises it once.
  int64_t (*bytes)(int64_t W, int64_t max_bytes);
  void (*begin)(char* workspace);
  // Writes kDecoded, kFallback or kTruncated to status (N,).
  void (*decode)(const Jpegs& in, char* workspace, uint8_t* status);
};

struct Kernels {
  const char* level;
  void (*normalise)(const Images& in, float* y);  // (N, 3, H, W)
  JpegKernels jpeg;                               // null pointers on a CPU without SSE2
  MarginSoftmaxKernels<float> margin_softmax_float;
  MarginSoftmaxKernels<double> margin_softmax_double;
  ActivationKernels<float> activation_float;
  ActivationKernels<double> activation_double;
  PointwiseKernels<float> pointwise_float;
  PointwiseKernels<double> pointwise_double;
  DepthwiseKernels<float> depthwise_float;
  DepthwiseKernels<double> depthwise_double;
  InferenceKernels<float> inference_float;
  InferenceKernels<double> inference_double;
};

// Returns the kernels of the highest level that this CPU supports, or of the level FACE_OPS_LEVEL.
const Kernels& kernels();

}  // namespace face
