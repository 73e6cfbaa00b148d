# SPDX-License-Identifier: Apache-2.0
"""The GPUs of this host as the NVIDIA driver sees them, and whether a run can use them.

Asks libcuda.so.1 itself, without mxnet: a kernel that a GPU has no machine code for fails in the
middle of the first step otherwise, with a message that does not name the cause.  So does code that
MXNet compiles at run time where the driver is too old for it.

``python -m launch.environment.gpu`` prints the number of GPUs and fails where no driver can
be loaded; the Makefile asks so which environment to use.
"""

from __future__ import annotations

import ctypes
import os
import sys
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

from launch.config.configuration import ConfigError

WHEEL = "mxnet-cu112"
WHEEL_CODE = ((5, 0), (6, 0), (7, 0), (8, 0), (8, 6))
"""Compute capabilities that the wheel's libmxnet.so holds machine code for; it holds no PTX."""

FUSION_CUDA = 11080
"""Least CUDA version of a driver that takes what MXNet compiles at run time.

On GPUs MXNet fuses the pointwise operators of hybridized graphs (src/imperative/cached_op.h) and
compiles them by NVRTC to PTX (src/operator/fusion/fused_op.cu).  The wheel's NVRTC is that of CUDA
11.8, whose PTX older drivers refuse with CUDA_ERROR_UNSUPPORTED_PTX_VERSION."""
FUSION_DRIVER = "520.61.05"
FUSION_SWITCH = "MXNET_USE_FUSION"

DRIVER = "libcuda.so.1"
_MAJOR, _MINOR = 75, 76  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_*


@dataclass(frozen=True)
class Gpu:
    """A GPU and its compute capability, (major, minor)."""

    name: str
    capability: tuple[int, int]

    def __str__(self) -> str:
        return f"{self.name} with compute capability {self.capability[0]}.{self.capability[1]}"


class Driver:
    """The NVIDIA driver; OSError if it cannot be loaded."""

    def __init__(self) -> None:
        self._cuda = ctypes.CDLL(DRIVER)
        # CUDA_ERROR_NO_DEVICE and a driver that does not run both mean: none here.
        self._ready = self._call("cuInit", 0)

    def version(self) -> int:
        """Return the CUDA version that the driver supports, 11040 for 11.4; 0 if it does not tell.

        Known without a GPU too.
        """
        number = ctypes.c_int(0)
        return number.value if self._call("cuDriverGetVersion", ctypes.byref(number)) else 0

    def count(self) -> int:
        """Return the number of GPUs that this process may see."""
        number = ctypes.c_int(0)
        counted = self._ready and self._call("cuDeviceGetCount", ctypes.byref(number))
        return number.value if counted else 0

    def gpu(self, index: int) -> Gpu:
        """Return one of them; the index is that of ``mx.gpu(index)``.

        Raises
        ------
        ConfigError
            If the driver does not tell.
        """
        name = ctypes.create_string_buffer(128)
        major, minor = ctypes.c_int(), ctypes.c_int()
        told = (
            self._ready
            and self._call("cuDeviceGetName", name, len(name), index)
            and self._call("cuDeviceGetAttribute", ctypes.byref(major), _MAJOR, index)
            and self._call("cuDeviceGetAttribute", ctypes.byref(minor), _MINOR, index)
        )
        if not told:
            raise ConfigError(
                f"run.device: the NVIDIA driver tells nothing of GPU {index}, got {self.count()} "
                "GPUs from it; see what nvidia-smi says, or use run.device=cpu"
            )
        return Gpu(name.value.decode(errors="replace"), (major.value, minor.value))

    def _call(self, name: str, *arguments: object) -> bool:
        """Call a function of the driver; return whether it is there and succeeds."""
        function = getattr(self._cuda, name, None)
        return function is not None and function(*arguments) == 0


def has_code(capability: tuple[int, int]) -> bool:
    """Return whether the wheel's machine code runs on a GPU of this compute capability.

    Code for (M, m) runs on (M, n) with n >= m, and on no other major number.  Source: CUDA C++
    Programming Guide, "Binary Compatibility".
    """
    return any(capability[0] == major and capability[1] >= minor for major, minor in WHEEL_CODE)


def choose_device(device: str, gpus: int, local_rank: int, local_size: int) -> tuple[bool, str]:
    """Return whether this rank computes on the GPU of its local rank, and a notice or "".

    Call it before a network is traced: it may switch MXNet's fusion off.

    Parameters
    ----------
    device
        ``run.device``: "auto", "cpu" or "gpu".
    gpus
        Number of GPUs that MXNet sees on this host.
    local_rank, local_size
        Place of this rank among those of the host, and their number.

    Raises
    ------
    ConfigError
        If there are GPUs, or they are asked for, and not one for every rank of the host, or if the
        GPU of this rank cannot be used.
    """
    if device == "cpu":
        return False, ""
    if gpus >= local_size:
        return True, require_code(local_rank)
    if device == "gpu":
        raise ConfigError(
            f"run.device: 'gpu' needs {local_size} GPUs on this host, MXNet sees {gpus}; "
            "use run.device=cpu or fewer ranks"
        )
    if gpus:
        # Horovod: all ranks of a host take one kind of device; theirs differ in what they can
        # exchange.  The CPU for all of them would be slower by a factor of a hundred.
        raise ConfigError(
            f"run.device: 'auto' wants a GPU for every rank or for none, got {local_size} ranks "
            f"on this host, MXNet sees {_gpus(gpus)}; start {gpus} (-np {gpus}), or use "
            "run.device=cpu; under Slurm ask for GPUs by node, which all of its tasks see"
        )
    return False, notice_of_no_gpu()


def notice_of_no_gpu() -> str:
    """Return what a run on the CPU should say where MXNet is the one for GPUs, else ""."""
    try:
        wheel = version(WHEEL)
    except PackageNotFoundError:
        return ""
    try:
        driver = Driver()
        seen = f"the NVIDIA driver, for CUDA {_release(driver.version())}, "
        seen += f"sees {_gpus(driver.count())}"
    except OSError:
        seen = "no NVIDIA driver can be loaded"
    return (
        f"device: computes on the CPU, {WHEEL} {wheel} is installed and MXNet sees no GPU "
        f"({seen}); see nvidia-smi and CUDA_VISIBLE_DEVICES, or ask for the CPU by its name"
    )


def fit_fusion(driver: Driver) -> str:
    """Switch MXNet's fusion off if the driver cannot take its code; return a notice, or "".

    A value of MXNET_USE_FUSION that is set already is left alone.  MXNet reads it whenever a graph
    is traced.
    """
    supported = driver.version()
    if not 0 < supported < FUSION_CUDA:
        return ""
    older = (
        f"driver: CUDA {_release(supported)} is older than the {_release(FUSION_CUDA)} for which "
        "MXNet compiles fused pointwise operators"
    )
    switch = os.environ.setdefault(FUSION_SWITCH, "0")
    if switch.lower() not in ("0", "false"):
        return (
            f"{older}, got {FUSION_SWITCH}={switch}; the first step fails unless the driver is "
            f"{FUSION_DRIVER} or newer, or {FUSION_SWITCH}=0"
        )
    return (
        f"{older}, they are off ({FUSION_SWITCH}={switch}), which is slower; a driver from "
        f"{FUSION_DRIVER} on takes them"
    )


def require_code(index: int) -> str:
    """Raise ConfigError if MXNet comes from the wheel and GPU ``index`` cannot run its code.

    Return the notice of `fit_fusion`.
    """
    try:
        wheel = version(WHEEL)
    except PackageNotFoundError:
        return ""  # built for this machine, as in NVIDIA's images
    driver = Driver()
    gpu = driver.gpu(index)
    if not has_code(gpu.capability):
        held = ", ".join(f"{major}.{minor}" for major, minor in WHEEL_CODE)
        raise ConfigError(
            f"run.device: {WHEEL} {wheel} holds machine code for compute capabilities {held} and "
            f"runs on 5.x to 8.x, got {gpu} as GPU {index}; use NVIDIA's NGC MXNet image 24.06, "
            "see docker/README.md, or run.device=cpu"
        )
    return fit_fusion(driver)


def _gpus(count: int) -> str:
    return "1 GPU" if count == 1 else f"{count} GPUs"


def _release(number: int) -> str:
    """Return a CUDA version as it is written, "11.4" for 11040."""
    return f"{number // 1000}.{number % 1000 // 10}" if number else "unknown"


def main() -> int:
    """Print the number of GPUs; return 1 if there is no driver."""
    try:
        print(Driver().count())
    except OSError:
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
