// SPDX-License-Identifier: Apache-2.0
// Choice of the instruction level at run time.
#include <cstdlib>
#include <cstring>

#include "kernels.h"

namespace face {
namespace avx512 {
extern const Kernels table;
}
namespace avx2 {
extern const Kernels table;
}
namespace baseline {
extern const Kernels table;
}

namespace {

const Kernels& choose() {
  const char* wanted = std::getenv("FACE_OPS_LEVEL");
  const auto allowed = [&](const Kernels& level) {
    return !wanted || !*wanted || !std::strcmp(wanted, level.level);
  };
  __builtin_cpu_init();
  if (allowed(avx512::table) && __builtin_cpu_supports("avx512f") &&
      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("bmi2"))
    return avx512::table;
  if (allowed(avx2::table) && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
      __builtin_cpu_supports("bmi2"))
    return avx2::table;
  return baseline::table;
}

}  // namespace

const Kernels& kernels() {
  static const Kernels& chosen = choose();
  return chosen;
}

}  // namespace face
