# SPDX-License-Identifier: Apache-2.0
"""Find the GPUs of this host and their compute capabilities; choose the device of a rank.

The module asks the NVIDIA driver directly, through libcuda.so.1.  MXNet itself fails late and
unclearly: if its wheel has no machine code for the GPU, or if the driver is too old for the code
that MXNet compiles at run time, the first training step fails with a message that names neither
cause.

``python -m launch.environment.gpu`` prints the number of GPUs, and fails if no driver can be
loaded.  The Makefile uses this command to choose between .venv and .venv-gpu.
"""

from __future__ import annotations

import ctypes
import os
import sys
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

from launch.config.configuration import ConfigError

WHEEL = "mxnet-cu112"
WHEEL_CAPABILITIES = ((5, 0), (6, 0), (7, 0), (8, 0), (8, 6))
"""Compute capabilities, as pairs (major, minor), for which the MXNet wheel contains machine code.

The wheel's libmxnet.so has no PTX, so the driver cannot compile code for other capabilities."""

MIN_FUSION_CUDA_VERSION = 11080
"""Minimum CUDA version of the driver for MXNet's operator fusion, as cuDriverGetVersion returns it.

On GPUs MXNet fuses the pointwise operators of hybridized graphs (src/imperative/cached_op.h) and
compiles them to PTX with NVRTC (src/operator/fusion/fused_op.cu).  The wheel ships the NVRTC of
CUDA 11.8.  Older drivers reject its PTX with CUDA_ERROR_UNSUPPORTED_PTX_VERSION."""
FUSION_DRIVER = "520.61.05"
FUSION_VARIABLE = "MXNET_USE_FUSION"

DRIVER = "libcuda.so.1"
_MAJOR, _MINOR = 75, 76  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and ..._MINOR


@dataclass(frozen=True)
class Gpu:
    """Name and compute capability (major, minor) of a GPU."""

    name: str
    capability: tuple[int, int]

    def __str__(self) -> str:
        return f"{self.name} with compute capability {self.capability[0]}.{self.capability[1]}"


class Driver:
    """The NVIDIA driver; the constructor raises OSError if no driver can be loaded."""

    def __init__(self) -> None:
        self._cuda = ctypes.CDLL(DRIVER)
        # cuInit fails if the host has no device or has not loaded the kernel module.  The host then
        # has no usable GPU.
        self._ready = self._call("cuInit", 0)

    def version(self) -> int:
        """Return the CUDA version that the driver supports, such as 11040 for 11.4; 0 if unknown.

        The driver reports the version even if the host has no GPU.
        """
        number = ctypes.c_int(0)
        return number.value if self._call("cuDriverGetVersion", ctypes.byref(number)) else 0

    def count(self) -> int:
        """Return the number of GPUs that are visible to this process."""
        number = ctypes.c_int(0)
        counted = self._ready and self._call("cuDeviceGetCount", ctypes.byref(number))
        return number.value if counted else 0

    def gpu(self, index: int) -> Gpu:
        """Return the name and the compute capability of ``mx.gpu(index)``.

        Raises
        ------
        ConfigError
            If the driver does not report the name and the compute capability.
        """
        name = ctypes.create_string_buffer(128)
        major, minor = ctypes.c_int(), ctypes.c_int()
        succeeded = (
            self._ready
            and self._call("cuDeviceGetName", name, len(name), index)
            and self._call("cuDeviceGetAttribute", ctypes.byref(major), _MAJOR, index)
            and self._call("cuDeviceGetAttribute", ctypes.byref(minor), _MINOR, index)
        )
        if not succeeded:
            raise ConfigError(
                f"run.device: the NVIDIA driver does not report GPU {index}, got {self.count()} "
                "GPUs from the driver; check the output of nvidia-smi, or use run.device=cpu"
            )
        return Gpu(name.value.decode(errors="replace"), (major.value, minor.value))

    def _call(self, name: str, *arguments: object) -> bool:
        """Call a function of the driver; return whether it exists and succeeds."""
        function = getattr(self._cuda, name, None)
        return function is not None and function(*arguments) == 0


def supports_capability(capability: tuple[int, int]) -> bool:
    """Return whether the MXNet wheel contains machine code for this compute capability.

    Machine code for capability (M, m) runs on GPUs of capability (M, n) if n >= m.  Source: CUDA
    C++ Programming Guide, "Binary Compatibility".
    """
    return any(
        capability[0] == major and capability[1] >= minor for major, minor in WHEEL_CAPABILITIES
    )


def choose_device(device: str, gpus: int, local_rank: int, local_size: int) -> tuple[bool, str]:
    """Choose the device of a rank: the CPU, or the GPU whose index is ``local_rank``.

    Return whether to use the GPU, and a notice for the log ("" if there is none).  Call this
    function before MXNet traces a graph, because this function may disable operator fusion.

    Parameters
    ----------
    device
        ``run.device``: "auto", "cpu" or "gpu".
    gpus
        Number of GPUs that MXNet sees on this host.
    local_rank, local_size
        Index of this rank on its host, and number of ranks on this host.

    Raises
    ------
    ConfigError
        If ``device`` is not "cpu" and the host has GPUs, but fewer than ranks; if ``device`` is
        "gpu" and the host has no GPU; or if MXNet cannot use the GPU of this rank.
    """
    if device == "cpu":
        return False, ""
    if gpus >= local_size:
        return True, require_supported_gpu(local_rank)
    if device == "gpu":
        raise ConfigError(
            f"run.device: 'gpu' requires a GPU for each of the {local_size} ranks on this host, "
            f"got {gpus}; use run.device=cpu or fewer ranks"
        )
    if gpus:
        # Horovod: all ranks must use the same kind of device, because the device decides how the
        # ranks exchange gradients.  The CPU on all ranks would be a hundred times slower, so refuse
        # the run.
        raise ConfigError(
            f"run.device: 'auto' requires one GPU per rank, got {local_size} ranks and "
            f"{_gpus(gpus)} on this host; start at most {gpus} of the ranks (-np {gpus}), or use "
            "run.device=cpu; under Slurm request GPUs per node, so that every task sees all GPUs "
            "of its node"
        )
    return False, no_gpu_notice()


def no_gpu_notice() -> str:
    """Return a notice for a process without a GPU if MXNet's CUDA build is installed; else ""."""
    try:
        wheel = version(WHEEL)
    except PackageNotFoundError:
        return ""
    try:
        driver = Driver()
        cause = f"the NVIDIA driver for CUDA {_release(driver.version())} "
        cause += f"reports {_gpus(driver.count())}"
    except OSError:
        cause = "no NVIDIA driver can be loaded"
    return (
        f"device: this process uses the CPU, because {WHEEL} {wheel} sees no GPU ({cause}); check "
        "nvidia-smi and CUDA_VISIBLE_DEVICES, or choose the CPU explicitly to hide this notice"
    )


def disable_unsupported_fusion(driver: Driver) -> str:
    """Disable MXNet's operator fusion if the driver is too old for fusion.

    Return a notice for the log, or "" if the driver supports fusion or does not report its version.
    MXNet reads the environment variable MXNET_USE_FUSION whenever it traces a graph.  If the user
    has set this variable, its value stays.
    """
    supported = driver.version()
    if not 0 < supported < MIN_FUSION_CUDA_VERSION:
        return ""
    problem = (
        f"driver: MXNet's operator fusion requires CUDA {_release(MIN_FUSION_CUDA_VERSION)}, "
        f"got a driver for CUDA {_release(supported)}"
    )
    value = os.environ.setdefault(FUSION_VARIABLE, "0")
    if value.lower() not in ("0", "false"):
        return (
            f"{problem} and {FUSION_VARIABLE}={value}; the first training step will fail; set "
            f"{FUSION_VARIABLE}=0, or install driver {FUSION_DRIVER} or newer"
        )
    return (
        f"{problem}; fusion is off ({FUSION_VARIABLE}={value}), which is slower: install driver "
        f"{FUSION_DRIVER} or newer"
    )


def require_supported_gpu(index: int) -> str:
    """Check that the MXNet wheel supports GPU ``index``; return a notice about fusion, or "".

    Other builds of MXNet, such as that in NVIDIA's images, are not checked, because the list of
    their machine code is not known here.

    Raises
    ------
    ConfigError
        If the wheel has no machine code for the GPU.
    """
    try:
        wheel = version(WHEEL)
    except PackageNotFoundError:
        return ""  # MXNet was not installed from this wheel
    driver = Driver()
    gpu = driver.gpu(index)
    if not supports_capability(gpu.capability):
        raise ConfigError(
            f"run.device: {WHEEL} {wheel} supports GPUs with compute capability 5.0 to 8.9, got "
            f"{gpu} as GPU {index}; use NVIDIA's NGC MXNet image 24.06 (docker/README.md), or "
            "run.device=cpu"
        )
    return disable_unsupported_fusion(driver)


def _gpus(count: int) -> str:
    return "1 GPU" if count == 1 else f"{count} GPUs"


def _release(number: int) -> str:
    """Format the number of a CUDA version: "11.4" for 11040, "unknown" for 0."""
    return f"{number // 1000}.{number % 1000 // 10}" if number else "unknown"


def main() -> int:
    """Print the number of GPUs; return 1 if no driver can be loaded."""
    try:
        print(Driver().count())
    except OSError:
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
