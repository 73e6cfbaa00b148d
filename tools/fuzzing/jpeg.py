# SPDX-License-Identifier: Apache-2.0
"""Fuzzing target: the compiled JPEG decoder, built with AddressSanitizer and UBSan.

The process that loads the decoder must start with the environment variables of
``sanitizer_environment``, and must not import MXNet.
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
import random
import shutil
import subprocess
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from tools.fuzzing.mutation import mutate

ROOT = Path(__file__).resolve().parents[2]
NATIVE = ROOT / "ops" / "native"
LIBRARY = "FACE_FUZZ_JPEG"
_SANITIZERS = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
_OPTIONS = ["-std=c++17", "-O1", "-g", "-fPIC", "-shared", "-fno-omit-frame-pointer"]
_LEVEL = {"avx2": ["-mavx2", "-mfma", "-mbmi2"], "baseline": []}
_LIMITS = "hard_rss_limit_mb=2048:detect_leaks=0:alloc_dealloc_mismatch=0:handle_abort=1"
# fmt: off
_TOKENS = (
    b"\xff\xd8", b"\xff\xd9", b"\xff\xda", b"\xff\xc0", b"\xff\xc2", b"\xff\xc4", b"\xff\xdb",
    b"\xff\xdd\x00\x04\x00\x01", b"\xff\xe1", b"\xff\xd0", b"\xff\x00", b"\xff\xff", b"Exif\0\0",
)
# fmt: on


def best_level() -> str:
    """Return the instruction level for this CPU: "avx2" if the CPU supports it, else "baseline"."""
    flags = Path("/proc/cpuinfo").read_text()
    return "avx2" if all(flag in flags for flag in (" avx2", " fma", " bmi2")) else "baseline"


def build(folder: Path, level: str) -> Path:
    """Compile the decoder for an instruction level; return the path of the library."""
    compiler = shutil.which(os.environ.get("CXX", "g++"))
    mxnet = importlib.util.find_spec("mxnet")
    if compiler is None or mxnet is None or mxnet.origin is None:
        raise OSError("fuzz: the JPEG target needs a C++ compiler and MXNet's headers, got at most "
                      "one of the two; install g++ and run `make setup`")  # fmt: skip
    include = Path(mxnet.origin).parent / "include"
    sources = [ROOT / "tools/fuzzing/jpeg_only.cc", NATIVE / "jpeg/decoder.cc", NATIVE / "feed.cc"]
    path = folder / f"jpeg-{level}.so"
    folders = [f"-I{NATIVE}", f"-I{include}", f"-I{include / 'mxnet'}"]
    command = [compiler, *_OPTIONS, *_SANITIZERS, *_LEVEL[level], *folders, *map(str, sources)]
    done = subprocess.run([*command, "-o", str(path)], capture_output=True, text=True)
    if done.returncode:
        raise OSError(
            f"fuzz: the JPEG decoder does not compile, got {done.stderr[:500]}; fix this error"
        )
    return path


def sanitizer_environment(library: Path) -> dict[str, str]:
    """Return the environment variables that a process needs to load the library of `build`."""
    compiler = os.environ.get("CXX", "g++")
    paths = [
        subprocess.run(
            [compiler, f"-print-file-name={name}.so"], capture_output=True, text=True, check=True
        ).stdout.strip()
        for name in ("libasan", "libubsan")
    ]
    return {
        LIBRARY: str(library),
        "LD_PRELOAD": " ".join(paths),
        "ASAN_OPTIONS": _LIMITS,
        "UBSAN_OPTIONS": "print_stacktrace=1:halt_on_error=1",
    }


class Jpeg:
    """Fuzzing target: each image that the decoder accepts must have the pixels of libjpeg-turbo."""

    refusals: tuple[type[Exception], ...] = ()
    messages_state_value, has_address_limit = True, False
    start_bytes = 0

    def prepare(self, folder: Path) -> None:
        # Load the module by its path, because importing the package `ops` would import MXNet.
        spec = importlib.util.spec_from_file_location("jpeg", ROOT / "ops" / "jpeg_decoder.py")
        assert spec and spec.loader
        module: Any = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        self.library = ctypes.CDLL(os.environ[LIBRARY])
        pointer, size = ctypes.c_void_p, ctypes.c_int64
        for name in ("face_find_turned", "face_find_other_sizes"):
            extra = [size, size] if name.endswith("sizes") else []
            function = getattr(self.library, name)
            function.argtypes, function.restype = [pointer, pointer, size, *extra, pointer], None
        self.library.face_jpeg_cut_off.argtypes = [pointer, size]
        self.library.face_jpeg_cut_off.restype = size
        self.decoder = module.JpegDecoder(self.library, 1)
        self.seeds = [self._seed(number) for number in range(48)]

    def _seed(self, number: int) -> tuple[bytes, tuple[int, int]]:
        rng = np.random.default_rng(number)
        height, width = (int(n) for n in rng.integers(1, 49, 2))
        pixels = rng.integers(0, 255, (6, 6, 3), np.uint8)
        pixels = np.asarray(cv2.resize(pixels, (width, height)), np.uint8)
        if number % 5 == 0:
            pixels = pixels[:, :, 0]
        sampling = (0x411111, 0x111111, 0x211111, 0x221111, 0x121111)[number % 5]
        options = [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(1, 101))]
        options += [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, sampling]
        options += [cv2.IMWRITE_JPEG_RST_INTERVAL, number % 3]
        options += [cv2.IMWRITE_JPEG_OPTIMIZE, number % 2]
        options += [cv2.IMWRITE_JPEG_PROGRESSIVE, int(number % 11 == 0)]
        return cv2.imencode(".jpg", pixels, options)[1].tobytes(), (height, width)

    def case(self, rng: random.Random) -> None:
        jpeg, (height, width) = rng.choice(self.seeds)
        # The memory of the copy ends with the last byte of the JPEG, so the sanitizer detects every
        # read beyond this byte.
        data = np.frombuffer(mutate(rng, jpeg, _TOKENS), np.uint8).copy()
        addresses, sizes = np.array([data.ctypes.data]), np.array([data.size])
        out = np.full((1, height, width, 3), 77, np.uint8)
        job = self.decoder.to_pixels(addresses, sizes, (height, width), out, data)
        self.decoder.wait(job)
        flag = np.zeros(1, np.uint8)
        arguments = addresses.ctypes.data, sizes.ctypes.data, 1
        self.library.face_find_turned(*arguments, flag.ctypes.data)
        self.library.face_find_other_sizes(*arguments, height, width, flag.ctypes.data)
        cut_off = self.library.face_jpeg_cut_off(data.ctypes.data, data.size)
        if job.outcomes[0]:
            return
        found = cv2.imdecode(data, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
        if found is None or not np.array_equal(found[:, :, ::-1], out[0]):
            raise AssertionError(
                "the decoder accepted an image, but libjpeg-turbo gives other pixels or none"
            )
        if flag[0] or cut_off:
            raise AssertionError(
                "the decoder accepted an image, but other functions of its library report that the "
                "image is cut off or has another size"
            )
