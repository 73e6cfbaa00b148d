/* SPDX-License-Identifier: Apache-2.0
 *
 * A libcuda.so.1 for machines without an NVIDIA driver: it lets libmxnet.so of mxnet-cu112 1.9.1 be
 * loaded, to build Horovod and to test the environment, and has no device to offer.
 *
 * These are the functions of the driver that libmxnet.so links:
 *     nm -D --undefined-only libmxnet.so | grep ' cu[A-Z]'
 * The CUDA runtime looks for others by name, finds none and counts no devices.
 */
enum { NO_DEVICE = 100 };

#define ABSENT(name)                                                                               \
    int name(void) { return NO_DEVICE; }

ABSENT(cuDeviceGet)
ABSENT(cuDevicePrimaryCtxRetain)
ABSENT(cuGraphKernelNodeGetParams)
ABSENT(cuGraphNodeGetType)
ABSENT(cuLaunchKernel)
ABSENT(cuModuleGetFunction)
ABSENT(cuModuleLoadData)
ABSENT(cuModuleLoadDataEx)
ABSENT(cuModuleUnload)

/* Its callers print the text without looking at the return code. */
int cuGetErrorString(int error, const char **text) {
    (void)error;
    *text = "this is a stand-in, not an NVIDIA driver";
    return 0;
}
