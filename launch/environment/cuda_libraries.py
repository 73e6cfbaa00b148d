# SPDX-License-Identifier: Apache-2.0
"""Import hook that loads the CUDA 11 libraries of the nvidia-* wheels before mxnet is imported.

libmxnet.so of mxnet-cu112 links its libraries by name, and the dynamic linker does not search the
folders of the wheels.  The linker reuses a library that is already loaded under the same name, so
this module loads all of them, dependencies first.  ``setup.sh`` copies the module into the
site-packages of ``.venv-gpu`` with a ``.pth`` file that imports it, so that every process has the
hook.  In a process that never imports mxnet, the hook only adds an entry to ``sys.meta_path``.

cuDNN and NVRTC load some of their own libraries on first use, by name.  If LD_LIBRARY_PATH contains
another release of them, the linker would find that release first.  The module therefore loads these
libraries too.
"""

import ctypes
import os
import sys
from collections.abc import Callable
from importlib.machinery import PathFinder
from pathlib import Path

DRIVER = "libcuda.so.1"
# Pairs (folder in site-packages/nvidia, library in this folder); dependencies come first.
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
    """Load the NVIDIA driver and the libraries of the wheels; return the number of libraries.

    If ``site`` contains none of the wheels, the system provides CUDA and nothing is loaded.

    Parameters
    ----------
    site
        The site-packages folder.
    load
        Function that loads a library by name or path.

    Raises
    ------
    ImportError
        If the driver or some of the wheels are missing.
    """
    paths = [site / "nvidia" / wheel / "lib" / name for wheel, name in LIBRARIES]
    missing = [path for path in paths if not path.is_file()]
    if len(missing) == len(paths):
        return 0
    if missing:
        raise ImportError(
            f"mxnet: the installation of the CUDA 11 libraries is incomplete, got no {missing[0]}; "
            "remove .venv-gpu and call `make gpu` again"
        )
    try:
        load(DRIVER)
    except OSError as error:
        raise ImportError(
            f"mxnet: this build of MXNet requires an NVIDIA driver, got {error}; "
            "install the NVIDIA driver (450.80.02 or newer), or use the CPU environment, .venv"
        ) from None
    for path in paths:
        load(str(path))
    # The cuDNN wheel is newer than the cuDNN that MXNet was compiled with.  The value 0 disables
    # MXNet's warning about the difference, which every rank would print.
    os.environ.setdefault("MXNET_CUDNN_LIB_CHECKING", "0")
    return len(paths)


class MxnetImportHook:
    """Import hook for ``sys.meta_path`` that calls `preload` before mxnet is imported."""

    @classmethod
    def find_spec(cls, name: str, path: object = None, target: object = None) -> None:
        """Call `preload` if ``name`` is mxnet and mxnet is installed next to this file.

        Return None, so that the next finder of ``sys.meta_path`` imports the module.
        """
        if name == "mxnet":
            site = Path(__file__).resolve().parent
            spec = PathFinder.find_spec("mxnet")
            # While horovod.sh builds Horovod, the first mxnet on the path may be the CPU build,
            # which needs no CUDA libraries.
            if spec and spec.origin and Path(spec.origin).resolve().parents[1] == site:
                preload(site)
        return None


if MxnetImportHook not in sys.meta_path and "mxnet" not in sys.modules:
    sys.meta_path.insert(0, MxnetImportHook)
