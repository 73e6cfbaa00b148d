// SPDX-License-Identifier: Apache-2.0
// C interface of the emulation for the tests.
#include "emulation.h"

extern "C" {

// Sets the order of threads and blocks: 0 forward, 1 backward, 2 shuffled.
void emulation_order(int order) { emulation::order = static_cast<emulation::Order>(order); }

// Sets the only stream on which kernels may be launched.
void emulation_stream(void* stream) { emulation::stream = stream; }

// Returns the number of kernel launches.
long long emulation_launches() { return emulation::launches; }

// Returns the current device of the calling thread.
int emulation_device() { return emulation::device; }

// Returns the devices, one bit each, on which contexts were created since the last call.
unsigned emulation_contexts() { return emulation::contexts.exchange(0); }

}  // extern "C"
