// SPDX-License-Identifier: Apache-2.0
// What the library says of itself.
#include "operators.h"
#ifdef FACE_GPU
#include "gpu/gpu.h"
#endif

// The name of the level in use, for logs and tests.
extern "C" const char* face_ops_level() { return face::kernels().level; }

#ifdef FACE_GPU
// Null, or why the operators cannot compute on this GPU.
extern "C" const char* face_ops_gpu_fault(int device) { return face::gpu::fault(device); }
#endif

MXReturnValue initialize(int version) {
  if (version < 10700) return fail("MXNet 1.7 or newer is needed");
  return MX_SUCCESS;
}
