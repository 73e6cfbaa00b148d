// SPDX-License-Identifier: Apache-2.0
// Functions that describe the library: its instruction level and its support of a GPU.
#include "operators.h"
#ifdef FACE_GPU
#include "gpu/gpu.h"
#endif

// Returns the name of the instruction level in use, for logs and tests.
extern "C" const char* face_ops_level() { return face::kernels().level; }

#ifdef FACE_GPU
// Returns why the operators cannot run on this GPU, or null if they can.
extern "C" const char* face_ops_gpu_fault(int device) { return face::gpu::fault(device); }
#endif

MXReturnValue initialize(int version) {
  if (version < 10700)
    return fail("ops: the operators need MXNet 1.7 or newer, got " + std::to_string(version) +
                "; install mxnet 1.9.1");
  return MX_SUCCESS;
}
