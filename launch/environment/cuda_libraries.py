# SPDX-License-Identifier: Apache-2.0
"""Load the CUDA 11 libraries of the nvidia-* wheels before mxnet asks the system for them.

libmxnet.so of mxnet-cu112 names its libraries without a folder, and the wheels lie where the
dynamic linker does not look.  A library that is loaded already is taken by its name, so loading
them first, each after what it needs, does what LD_LIBRARY_PATH would, in every process of the
environment: ``setup.sh`` copies this module and a ``.pth`` file that imports it into the
site-packages of ``.venv-gpu``.  A process that never imports mxnet pays for one entry in
``sys.meta_path`` and nothing else.

LD_LIBRARY_PATH must do no harm either: cuDNN and NVRTC load parts of themselves by name when they
are first needed, and another release that the path leads to would come before the wheels'.  So
those parts are loaded here as well.
"""

import ctypes
import os
import sys
from collections.abc import Callable
from importlib.machinery import PathFinder
from pathlib import Path

DRIVER = "libcuda.so.1"
# (folder of the wheel below site-packages/nvidia, library), each after what it needs.
LIBRARIES = (
    ("cuda_runtime", "libcudart.so.11.0"),
    ("nvtx", "libnvToolsExt.so.1"),
    ("cuda_nvrtc", "libnvrtc-builtins.so.11.8"),
    ("cuda_nvrtc", "libnvrtc.so.11.2"),
    ("cublas", "libcublasLt.so.11"),
    ("cublas", "libcublas.so.11"),
    ("cusparse", "libcusparse.so.11"),
    ("cusolver", "libcusolver.so.11"),
    ("cufft", "libcufft.so.10"),
    ("curand", "libcurand.so.10"),
    ("cudnn", "libcudnn.so.8"),
    ("cudnn", "libcudnn_ops_infer.so.8"),
    ("cudnn", "libcudnn_ops_train.so.8"),
    ("cudnn", "libcudnn_cnn_infer.so.8"),
    ("cudnn", "libcudnn_cnn_train.so.8"),
    ("cudnn", "libcudnn_adv_infer.so.8"),
    ("cudnn", "libcudnn_adv_train.so.8"),
    ("nccl", "libnccl.so.2"),
)


def preload(site: Path, load: Callable[[str], object] = ctypes.CDLL) -> int:
    """Load the driver and the libraries of the wheels in ``site``; return how many libraries.

    Nothing is loaded where no such wheel is: CUDA is the system's own affair then.

    Raises
    ------
    ImportError
        If the driver is missing, or some of the wheels.
    """
    paths = [site / "nvidia" / wheel / "lib" / name for wheel, name in LIBRARIES]
    missing = [path for path in paths if not path.is_file()]
    if len(missing) == len(paths):
        return 0
    if missing:
        raise ImportError(
            f"mxnet: some of the CUDA 11 libraries are missing, got no {missing[0]}; "
            "remove .venv-gpu and call `make gpu` again"
        )
    try:
        load(DRIVER)
    except OSError as error:
        raise ImportError(
            f"mxnet: this is MXNet for NVIDIA GPUs and their driver cannot be loaded, got {error}; "
            "install the NVIDIA driver (450.80.02 or newer), or use the CPU environment, .venv"
        ) from None
    for path in paths:
        load(str(path))
    # Every rank would warn of a cuDNN newer than the one MXNet was compiled against: it is meant.
    os.environ.setdefault("MXNET_CUDNN_LIB_CHECKING", "0")
    return len(paths)


class MxnetImportHook:
    """A finder that finds nothing: it only sees that mxnet is about to be imported."""

    @classmethod
    def find_spec(cls, name: str, path: object = None, target: object = None) -> None:
        """Preload when ``name`` is the mxnet beside this file, then leave the search to others."""
        if name == "mxnet":
            site = Path(__file__).resolve().parent
            spec = PathFinder.find_spec("mxnet")
            # Horovod's build may put the MXNet for the CPU before the one of the environment.
            if spec and spec.origin and Path(spec.origin).resolve().parents[1] == site:
                preload(site)
        return None


if MxnetImportHook not in sys.meta_path and "mxnet" not in sys.modules:
    sys.meta_path.insert(0, MxnetImportHook)
