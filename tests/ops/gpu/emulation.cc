// SPDX-License-Identifier: Apache-2.0
// What the tests set and ask of the emulation.
#include "emulation.h"

extern "C" {

// Threads and blocks run in this order: 0 forward, 1 backward, 2 shuffled.
void emulation_order(int order) { emulation::order = static_cast<emulation::Order>(order); }

// The stream that all work must be put on.
void emulation_stream(void* stream) { emulation::stream = stream; }

long long emulation_launches() { return emulation::launches; }

// The current device of the calling thread.
int emulation_device() { return emulation::device; }

// The devices, one bit each, on which contexts were opened since the last call.
unsigned emulation_contexts() { return emulation::contexts.exchange(0); }

}  // extern "C"
