/* SPDX-License-Identifier: Apache-2.0
 *
 * Stub libcuda.so.1 for machines without an NVIDIA driver. With it libmxnet.so of mxnet-cu112 1.9.1
 * can be loaded, to build Horovod and to test the environment. The stub reports no device.
 *
 * It defines the driver functions that libmxnet.so links:
 *     nm -D --undefined-only libmxnet.so | grep ' cu[A-Z]'
 * The CUDA runtime looks up further driver functions by name.  It finds none of them in the stub and
 * reports no device.
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

/* libmxnet.so prints the text of an error without checking the code that this function returns. */
int cuGetErrorString(int error, const char **text) {
    (void)error;
    *text = "this is a stub, not an NVIDIA driver";
    return 0;
}
