# SPDX-License-Identifier: Apache-2.0
"""Who may import whom, read from the sources; and that importing does nothing else."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
MODULES = ("run_train", "atomic_write", "encoded_images", "ranges")  # files at the root
PACKAGES = ("launch", "pipeline", "ops", "nets", "heads", "training", "evaluation")
OURS = (*PACKAGES, *MODULES, "benchmarks", "tools", "tests")

# What a package may import of ours, besides itself.
ALLOWED = {
    "launch": ("ranges",),
    "ops": (),
    "atomic_write": (),
    "encoded_images": (),
    "ranges": (),
    "evaluation": ("encoded_images",),
    "pipeline": ("ops", "encoded_images"),
    "nets": ("ops", "ranges"),
    "heads": ("ops", "ranges"),
    "training": ("launch.ranks.comm",),
    "run_train": PACKAGES,
    "benchmarks": PACKAGES,
    "tools": PACKAGES,
}
# Files that may import more, or less, than their package.
EXCEPTIONS = {
    "evaluation/__main__.py": PACKAGES,  # a composition root, like run_train.py
    "heads/partial_fc.py": ("ops", "launch.ranks.comm"),
}
# Pure arithmetic and plain configuration: usable where there is no mxnet.
PURE = (
    "pipeline/sampling/permutations.py",
    "pipeline/sampling/augmentation.py",
    "pipeline/records/classes.py",
    "training/schedule.py",
    "launch/config/cli.py",
    "launch/config/configuration.py",
    "launch/config/docstrings.py",
    "launch/config/duration.py",
    "launch/config/help.py",
    "launch/config/paths.py",
    "launch/config/schema.py",
    "launch/config/sections.py",
    "launch/config/values.py",
    "launch/config/yaml_files.py",
    "evaluation/verification.py",
    "encoded_images.py",
    "ranges.py",
)
PURE_PARTS = {  # pure themselves
    ("pipeline/sampling/augmentation.py", "pipeline.sampling.permutations"),
}
# The longest name that fits counts. horovod.runner starts ranks and is never loaded in one: it
# belongs to the launcher's process, where neither mxnet nor a collective may be.
ONLY_IMPORTER = {
    "horovod": "launch/ranks/comm.py",
    "horovod.runner": "launch/launchers/rendezvous.py",
    "nvidia": "pipeline/decode/dali.py",
}


def sources() -> list[Path]:
    files = [ROOT / f"{name}.py" for name in MODULES]
    for folder in (*PACKAGES, "benchmarks", "tools"):
        files += sorted((ROOT / folder).rglob("*.py"))
    return files


def imports(source: str, place: str) -> Iterator[tuple[int, str]]:
    """Yield (line, dotted name) of every import, also inside functions."""
    package = place.rsplit("/", 1)[0].split("/") if "/" in place else []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            yield from ((node.lineno, f"{base}.{alias.name}") for alias in node.names)


def fits(name: str, allowed: str) -> bool:
    return name == allowed or name.startswith(allowed + ".")


def is_pure_part(place: str, name: str) -> bool:
    if place.startswith("launch/config/") and name.startswith(("ranges.", "launch.config.")):
        return True
    return any(place == p and fits(name, part) for p, part in PURE_PARTS)


def violations(source: str, place: str) -> list[str]:
    """Return ``<file>:<line> imports <what>; <who> may import only: <whom>`` of one file."""
    package = place.split("/")[0].removesuffix(".py")
    allowed = EXCEPTIONS.get(place, ALLOWED[package])
    found = []
    for line, name in imports(source, place):
        top = name.split(".")[0]
        named = max((n for n in ONLY_IMPORTER if fits(name, n)), key=len, default=None)
        if named and place != ONLY_IMPORTER[named]:
            found.append(f"{place}:{line} imports {named}; only {ONLY_IMPORTER[named]} may")
        if place in PURE and top in (*OURS, "mxnet") and not is_pure_part(place, name):
            found.append(f"{place}:{line} imports {top}; it may import neither mxnet nor ours")
        elif place == "pipeline/decode/dali.py" and top == "mxnet":
            found.append(f"{place}:{line} imports mxnet; it knows DALI alone")
        elif top in OURS and not any(fits(name, a) for a in (package, "atomic_write", *allowed)):
            what = ".".join(name.split(".")[:2]) if top == "launch" else top
            listing = ", ".join(allowed) or "nothing of ours"
            found.append(f"{place}:{line} imports {what}; {package} may import only: {listing}")
    return found


def test_every_import_follows_the_arrows():
    files = sources()
    assert {p.relative_to(ROOT).parts[0] for p in files} >= {*PACKAGES[:2], "nets", "run_train.py"}
    found = [
        sentence
        for path in files
        for sentence in violations(path.read_text(), path.relative_to(ROOT).as_posix())
    ]
    assert not found, "\n" + "\n".join(found)


def test_a_wrong_import_is_named_with_its_place():
    source = "import math\n\n\ndef late():\n    from training import step\n"
    assert violations(source, "heads/margin_head.py") == [
        "heads/margin_head.py:5 imports training; heads may import only: ops, ranges"
    ]
    assert violations("from launch.config.configuration import Config\n", "training/loop.py") == [
        "training/loop.py:1 imports launch.config; training may import only: launch.ranks.comm"
    ]
    assert violations("from launch.ranks import comm\n", "training/loop.py") == []
    assert violations("import horovod.mxnet as hvd\n", "training/loop.py") == [
        "training/loop.py:1 imports horovod; only launch/ranks/comm.py may"
    ]
    server = "from horovod.runner.http.http_server import RendezvousServer\n"
    assert violations(server, "launch/launchers/rendezvous.py") == []
    assert violations(server, "launch/ranks/comm.py") == [
        "launch/ranks/comm.py:1 imports horovod.runner; only launch/launchers/rendezvous.py may"
    ]
    assert violations("import horovod.mxnet\n", "launch/launchers/rendezvous.py") == [
        "launch/launchers/rendezvous.py:1 imports horovod; only launch/ranks/comm.py may"
    ]
    assert violations("import nvidia.dali.fn\n", "pipeline/loader.py") == [
        "pipeline/loader.py:1 imports nvidia; only pipeline/decode/dali.py may"
    ]
    assert violations("from .records import RecordSet\n", "pipeline/sampling/permutations.py") == [
        "pipeline/sampling/permutations.py:1 imports pipeline; it may import neither mxnet nor ours"
    ]
    assert violations("from launch.ranks.comm import Comm\n", "heads/margin_softmax.py") == [
        "heads/margin_softmax.py:1 imports launch.ranks.comm; heads may import only: ops, ranges"
    ]
    assert violations("from launch.ranks.comm import Comm\n", "heads/partial_fc.py") == []


IMPORT_ALL = """
import importlib, signal, sys, threading
handlers = {s: signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)}
import mxnet, numpy, random
random.seed(1), numpy.random.seed(1)
for name in sys.argv[1:]:
    threads = set(threading.enumerate())
    importlib.import_module(name)
    started = set(threading.enumerate()) - threads
    if started:
        print(name, "starts threads when imported:", started)
if {s: signal.getsignal(s) for s in handlers} != handlers:
    print("importing sets signal handlers")
if random.random() != random.Random(1).random():
    print("importing draws from random")
if numpy.random.random() != numpy.random.RandomState(1).random_sample():
    print("importing draws from numpy.random")
if "horovod" in sys.modules:
    print("importing loads Horovod, where one process alone needs none")
"""


def test_importing_does_nothing_else(tmp_path):
    names = [
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for path in sources()
        if path.relative_to(ROOT).parts[0] in (*PACKAGES, "encoded_images.py")
        and path.name != "__main__.py"
    ]
    for hook in ("numpy_aliases", "cuda_libraries"):  # their purpose is a hook set at import
        names.remove(f"launch.environment.{hook}")
    done = subprocess.run(
        [sys.executable, "-c", IMPORT_ALL, *names],
        cwd=tmp_path,
        env={
            "PYTHONPATH": str(ROOT),
            "PATH": "/usr/bin:/bin",
            "PYTHONDONTWRITEBYTECODE": "1",
            "LD_LIBRARY_PATH": os.environ.get("LD_LIBRARY_PATH", ""),
        },
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert not list(tmp_path.iterdir())
