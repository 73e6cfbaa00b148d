# SPDX-License-Identifier: Apache-2.0
"""The GPUs of this host as the NVIDIA driver sees them, and whether MXNet's wheel can use them.

Asks libcuda.so.1 itself, without mxnet: a kernel that a GPU has no machine code for fails in the
middle of the first step otherwise, with a message that does not name the cause.

``python -m launch.gpu`` prints the number of GPUs and fails where no driver can be loaded; the
Makefile asks so which environment to use.
"""

from __future__ import annotations

import ctypes
import sys
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

from launch.config import ConfigError

WHEEL = "mxnet-cu112"
WHEEL_CODE = ((5, 0), (6, 0), (7, 0), (8, 0), (8, 6))
"""Compute capabilities that the wheel's libmxnet.so holds machine code for; it holds no PTX."""

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


def require_code(index: int) -> None:
    """Raise ConfigError if MXNet comes from the wheel and GPU ``index`` cannot run its code."""
    try:
        wheel = version(WHEEL)
    except PackageNotFoundError:
        return  # built for this machine, as in NVIDIA's images
    gpu = Driver().gpu(index)
    if not has_code(gpu.capability):
        held = ", ".join(f"{major}.{minor}" for major, minor in WHEEL_CODE)
        raise ConfigError(
            f"run.device: {WHEEL} {wheel} holds machine code for compute capabilities {held} and "
            f"runs on 5.x to 8.x, got {gpu} as GPU {index}; use NVIDIA's NGC MXNet image 24.06, "
            "see docker/README.md, or run.device=cpu"
        )


def main() -> int:
    """Print the number of GPUs; return 1 if there is no driver."""
    try:
        print(Driver().count())
    except OSError:
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
