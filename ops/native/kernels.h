// SPDX-License-Identifier: Apache-2.0
// What the operators compute, as one table of functions for each level of instructions.
#pragma once
#include <cstdint>

namespace face {

constexpr int kMostThreads = 256;

// What stands in the place of a score c of a class that is not the target, where losses reweigh
// these: (square c + linear) c + constant, with the slope slope_linear c + slope_constant, where c
// is above the row's threshold; elsewhere `rest` times c.
template <typename T>
struct Columns {
  const T* threshold;  // (B,); null: c stands as it is
  T square, linear, constant, slope_linear, slope_constant, rest;
};

// Inputs of the margin softmax: B rows, D dimensions, C classes.
template <typename T>
struct MarginSoftmax {
  int64_t B, D, C;
  const T* embedding;  // (B, D)
  const T* centres;    // (C, D)
  const T* label;      // (B,) whole numbers; -1: the target is not among these classes
  const T* psi;        // (B,) what stands in the place of the target's cosine
  const T* slope;      // (B,) d psi / d cosine
  T scale;
  bool unit_rows = true, unit_columns = true;  // whether they are normalised: else inner products
  int64_t group = 1;  // centres of one class, side by side; the nearest one counts. The label is
                      // that one's row for the target
  Columns<T> columns{};
  bool squares = false;  // whether |w|^2 / 2 is taken off the inner products: what distances need
  bool pulls = true;  // whether forward gives the gradients of the rows; else zeros
};

// What its forward gives.
template <typename T>
struct MarginSoftmaxResults {
  T* loss;     // (B,)
  T* cosine;   // (B,) the target's, without margin; 0 where it is not among these classes
  T* maximum;  // (B,) largest logit
  T* total;    // (B,) sum of exp(logit - maximum)
  T* pull;     // (B, D) gradient of each row's loss for its embedding
  T* share;    // (C,) bound of the length of the sum of p_bj x_b, over |w_j| if that is normalised;
               // beyond all bounds for a class that is a target
};

// What backward takes of it.
template <typename T>
struct MarginSoftmaxState {
  const T *cosine, *maximum, *total, *share;
};

// One step of SGD with momentum on the centres, in place.
template <typename T>
struct CentreStep {
  T rate, momentum, decay;
  T* centres;   // (C, D)
  T* velocity;  // (C, D)
};

template <typename T>
struct MarginSoftmaxKernels {
  // Bytes of working memory, aligned to 64 bytes, that each of the others needs.
  int64_t (*bytes)(int64_t B, int64_t D, int threads);
  void (*forward)(const MarginSoftmax<T>& in, int threads, char* memory,
                  const MarginSoftmaxResults<T>& out);
  void (*backward)(const MarginSoftmax<T>& in, int threads, char* memory,
                   const MarginSoftmaxState<T>& state, const T* loss_gradient,
                   T* centres_gradient);
  // For the mean of the losses.
  void (*update)(const MarginSoftmax<T>& in, int threads, char* memory,
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
  const T* slope;  // (C,) of the PReLU behind it, null for none
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
  void (*forward)(const Pointwise& size, int threads, char* memory, const T* x, const T* weight,
                  T* y);
  void (*backward)(const Pointwise& size, int threads, char* memory, const T* x, const T* weight,
                   const T* dy, T* dx, T* dweight);
};

// A depthwise 3x3 convolution with padding 1 of N images with C channels of H x W pixels.
struct Depthwise {
  int64_t N, C, H, W, step;
};

template <typename T>
struct DepthwiseKernels {
  int64_t (*bytes)(const Depthwise& size, int threads);
  void (*forward)(const Depthwise& size, int threads, char* memory, const BatchNorm<T>& in,
                  const T* weight, T momentum, T* y, T* mean, T* inverse, T* running_mean,
                  T* running_variance);
  void (*backward)(const Depthwise& size, int threads, char* memory, const BatchNorm<T>& in,
                   const T* weight, const T* mean, const T* inverse, const T* dy, T* dx, T* dweight,
                   T* dgamma, T* dbeta, T* dslope);
};

// N pictures of H x W pixels, three colours side by side, at some rows of an array of pictures.
struct Pictures {
  int64_t N, H, W;
  const uint8_t* pixels;
  const int64_t* rows;    // (N,)
  const uint8_t* mirror;  // (N,) 1: left and right change places
  float factor, offset;   // y = x * factor + offset
};

// What becomes of a JPEG: it is decoded; left to a decoder for all JPEGs, which turns it where Exif
// asks for that; or its codes end before its last pixels.
constexpr uint8_t kDecoded = 0, kLeft = 1, kCutOff = 2;

// N JPEG pictures of H x W pixels; those longer than `most` bytes are left.
struct Jpegs {
  int64_t N, H, W, most;
  const uint8_t* const* data;  // (N,)
  const int64_t* bytes;        // (N,)
  const uint8_t* mirror;       // (N,) as above, for planes
  float factor, offset;
  float* planes;    // (N, 3, H, W); null for pixels
  uint8_t* pixels;  // (N, H, W, 3); null as well: codes are read and nothing is written
};

struct JpegKernels {
  // Bytes of working memory, aligned to 64 bytes, which is begun once.
  int64_t (*bytes)(int64_t W, int64_t most);
  void (*begin)(char* memory);
  // left (N,): kDecoded, kLeft or kCutOff.
  void (*decode)(const Jpegs& in, char* memory, uint8_t* left);
};

struct Kernels {
  const char* level;
  void (*normalise)(const Pictures& in, float* y);  // (N, 3, H, W)
  JpegKernels jpeg;  // null where there are no vectors of integers
  MarginSoftmaxKernels<float> margin_softmax_float;
  MarginSoftmaxKernels<double> margin_softmax_double;
  ActivationKernels<float> activation_float;
  ActivationKernels<double> activation_double;
  PointwiseKernels<float> pointwise_float;
  PointwiseKernels<double> pointwise_double;
  DepthwiseKernels<float> depthwise_float;
  DepthwiseKernels<double> depthwise_double;
};

// The best level that this machine has, or a lower one named by FACE_OPS_LEVEL.
const Kernels& kernels();

}  // namespace face
