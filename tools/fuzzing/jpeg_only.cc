// SPDX-License-Identifier: Apache-2.0
// The JPEG decoder alone, for one instruction level, so that a build with sanitizers takes seconds.
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
namespace only {

struct Range {
  int64_t begin, end;
};
inline Range share(int64_t count, int k, int n) { return {count * k / n, count * (k + 1) / n}; }

#include "vector.h"
// the order matters: each header uses those before it
#include "memory.h"
#include "images.h"
#include "jpeg/jpeg_segments.h"
#include "jpeg/jpeg_huffman.h"
#include "jpeg/jpeg_idct.h"
#include "jpeg/jpeg_colour.h"
#include "jpeg/jpeg.h"

}  // namespace only

const Kernels& kernels() {
  static const Kernels table = {"only", only::normalise,
                                {only::jpeg_bytes, only::jpeg_begin, only::jpeg_decode}};
  return table;
}

}  // namespace face
