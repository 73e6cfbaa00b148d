// SPDX-License-Identifier: Apache-2.0
// What the library says of itself.
#include "operators.h"
#ifdef FACE_GPU
#include "gpu/gpu.h"
#endif

// The name of the level in use, for logs and tests.
extern "C" const char* face_ops_level() { return face::kernels().level; }

#ifdef FACE_GPU
// Null, or why the operators cannot compute on the GPU that is the current one.
extern "C" const char* face_ops_gpu_fault() { return face::gpu::fault(); }
#endif

MXReturnValue initialize(int version) {
  if (version < 10700) return fail("MXNet 1.7 or newer is needed");
  return MX_SUCCESS;
}
