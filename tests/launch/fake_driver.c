/* SPDX-License-Identifier: Apache-2.0
 *
 * An NVIDIA driver for the tests: one GPU for each compute capability of CAPABILITIES, 90 for 9.0;
 * none if the list is empty. VERSION is the CUDA version that it supports, 11040 for 11.4.
 */
#include <stdio.h>

static const int capabilities[] = {CAPABILITIES 0}; /* and one that counts for none */
enum {
    COUNT = sizeof capabilities / sizeof *capabilities - 1,
    INVALID_DEVICE = 101,
    MAJOR = 75,
    MINOR = 76
};
static int ready;

int cuInit(unsigned flags) {
    ready = 1;
    return (int)flags;
}

int cuDriverGetVersion(int *version) {
    *version = VERSION;
    return 0; /* before cuInit too */
}

int cuDeviceGetCount(int *count) {
    *count = COUNT;
    return ready ? 0 : 3; /* not initialised */
}

int cuDeviceGetName(char *name, int size, int device) {
    if (!ready || device < 0 || device >= COUNT)
        return INVALID_DEVICE;
    snprintf(name, (unsigned long)size, "Fake GPU %d", device);
    return 0;
}

int cuDeviceGetAttribute(int *value, int attribute, int device) {
    if (!ready || device < 0 || device >= COUNT || (attribute != MAJOR && attribute != MINOR))
        return INVALID_DEVICE;
    *value = attribute == MAJOR ? capabilities[device] / 10 : capabilities[device] % 10;
    return 0;
}
