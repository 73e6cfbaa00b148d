// SPDX-License-Identifier: Apache-2.0
// All kernels of one instruction level.  The build compiles this file once for each value of LEVEL.
#include <math.h>
#include <stdint.h>
#include <string.h>
#if defined(__AVX2__)
#include <immintrin.h>
#elif defined(__SSE2__)
#include <emmintrin.h>
#endif

#include "kernels.h"

namespace face {
namespace LEVEL {

constexpr double kMinLogit = -1e30;  // below every logit

struct Range {
  int64_t begin, end;
};
// Returns the part of `count` items that thread k of n processes.  It is the same at every call, so
// that every run sums in the same order.
inline Range share(int64_t count, int k, int n) { return {count * k / n, count * (k + 1) / n}; }

#include "vector.h"
// the order matters: each header uses those before it
#include "memory.h"
#include "margin/margin_softmax.h"
#include "margin/margin_softmax_forward.h"
#include "margin/margin_softmax_backward.h"
#include "layers/activation.h"
#include "layers/pointwise.h"
#include "layers/depthwise.h"
#include "layers/inference.h"
#include "images.h"
#include "jpeg/jpeg_segments.h"
#include "jpeg/jpeg_huffman.h"
#include "jpeg/jpeg_idct.h"
#include "jpeg/jpeg_colour.h"
#include "jpeg/jpeg.h"

extern const Kernels table;
const Kernels table = {
#define NAME(level) NAME_(level)
#define NAME_(level) #level
    NAME(LEVEL),
    normalise,
#if defined(__SSE2__)
    {jpeg_bytes, jpeg_begin, jpeg_decode},
#else
    {nullptr, nullptr, nullptr},
#endif
    {margin_softmax_bytes<float>, margin_softmax_forward<float>, margin_softmax_backward<float>,
     margin_softmax_update<float>},
    {margin_softmax_bytes<double>, margin_softmax_forward<double>, margin_softmax_backward<double>,
     margin_softmax_update<double>},
    {prelu_forward<float>, prelu_backward<float>, batch_norm_forward<float>,
     batch_norm_backward<float>},
    {prelu_forward<double>, prelu_backward<double>, batch_norm_forward<double>,
     batch_norm_backward<double>},
    {pointwise_bytes<float>, pointwise_forward<float>, pointwise_backward<float>},
    {pointwise_bytes<double>, pointwise_forward<double>, pointwise_backward<double>},
    {depthwise_bytes<float>, depthwise_forward<float>, depthwise_backward<float>},
    {depthwise_bytes<double>, depthwise_forward<double>, depthwise_backward<double>},
    {frozen_norm<float>, frozen_pointwise_bytes<float>, frozen_pointwise<float>,
     frozen_depthwise_bytes<float>, frozen_depthwise<float>},
    {frozen_norm<double>, frozen_pointwise_bytes<double>, frozen_pointwise<double>,
     frozen_depthwise_bytes<double>, frozen_depthwise<double>},
};

}  // namespace LEVEL
}  // namespace face
