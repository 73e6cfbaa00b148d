# SPDX-License-Identifier: Apache-2.0
"""Rules of the source tree: allowed imports, properties of files, no side effects of imports."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
# Modules in the root folder.
MODULES = (
    *("run_train", "aliases", "atomic_write", "encoded_images", "image_headers", "mxnet_arrays"),
    *("normalization", "plain_yaml", "ranges", "regular_file", "suggestions"),
)
PACKAGES = (
    *("launch", "ops", "pipeline", "nets", "heads", "training", "evaluation", "interchange"),
    *("alignment", "plain_pickle"),
    "assemble",
)
PROGRAMS = ("benchmarks", "tools", "examples", "docker")
OURS = (*MODULES, *PACKAGES, *PROGRAMS, "tests")
MAX_LINES = 350  # of a file outside tests/

PARTS = (*MODULES[1:], *(package for package in PACKAGES if package != "assemble"))
# Modules of this repository that a folder may import, besides itself. The longest key that matches
# a module applies.
ALLOWED: dict[str, tuple[str, ...]] = {
    "aliases": (),
    "atomic_write": (),
    "encoded_images": (),
    "image_headers": ("encoded_images",),
    "mxnet_arrays": (),
    "normalization": (),
    "plain_yaml": (),
    "ranges": ("suggestions",),
    "regular_file": (),
    "suggestions": ("aliases",),
    "ops": (),
    "plain_pickle": (),
    "launch": ("atomic_write", "plain_yaml", "ranges", "suggestions"),
    "alignment": ("atomic_write", "encoded_images", "image_headers", "suggestions"),
    "evaluation": (
        *("alignment.similarity", "alignment.template"),
        *("atomic_write", "encoded_images", "image_headers", "plain_pickle", "regular_file"),
    ),
    "evaluation.__main__": PARTS,  # a program
    "evaluation.commands": PARTS,  # its commands
    "pipeline": ("atomic_write", "encoded_images", "normalization", "ops"),
    "pipeline.records": ("atomic_write", "encoded_images", "image_headers", "ops", "regular_file"),
    "pipeline.sampling": ("pipeline.records", "ops"),
    "pipeline.decode": (
        *("pipeline.records", "pipeline.sampling"),
        *("atomic_write", "encoded_images", "normalization", "ops"),
    ),
    "nets": ("ops", "ranges"),
    "nets.__main__": PARTS,  # a program
    "heads": ("launch.ranks", "ops", "ranges"),  # sharded heads exchange embeddings
    "training": (
        *("launch.ranks", "heads.shard"),
        *("atomic_write", "mxnet_arrays", "normalization", "plain_yaml"),
    ),
    "training.__main__": PARTS,  # a program
    "interchange": (
        *("nets", "training.checkpoint", "training.checkpoint_folders", "training.reshard"),
        "training.stored_rows",
        *("atomic_write", "mxnet_arrays", "normalization", "plain_pickle", "ranges"),
    ),
    "interchange.__main__": PARTS,  # a program
    "assemble": PARTS,
    "run_train": ("assemble", "launch", "training"),
    "benchmarks": PARTS,
    "tools": PARTS,
    "examples": PARTS,
    "docker": (),
}
# Folders and modules that must import neither MXNet nor DALI.
PURE = (
    *("pipeline.records", "pipeline.sampling", "launch.config", "training.schedule"),
    *("evaluation.verification", "atomic_write", "encoded_images", "image_headers"),
    *("mxnet_arrays", "normalization", "plain_pickle", "plain_yaml", "ranges", "regular_file"),
    *("aliases", "alignment", "suggestions"),
    *("ops.feed", "ops.guard", "ops.jpeg_decoder", "ops.native.gpu"),
)
# The longest key that matches applies. Only the launcher's process may import horovod.runner; that
# process must use neither mxnet nor a collective.
ONLY_IMPORTERS = {
    "horovod": ("launch.ranks.comm",),
    "horovod.runner": ("launch.launchers.rendezvous",),
    "nvidia": ("pipeline.decode.dali", "pipeline.decode.dali_reader"),
    "assemble": ("run_train",),
}
# Modules that must not import MXNet although their folder may.
WITHOUT_MXNET = ("pipeline.decode.dali",)
# Folders in which every module has a test file of the same name.
MIRRORED = ("assemble", "heads", "pipeline", "training")
MAY_CHANGE_SYS_PATH = (
    "launch/ranks/companion.py",  # runs without the module `site`
    "benchmarks/gpu_operators.py",  # its environment may not have the project installed
    "benchmarks/harness/baselines.py",  # adds the folder of an unpacked baseline
    "benchmarks/steps/partial_fc_steps.py",  # adds the folder of a baseline that the user names
    "tools/evaluation_checks/gluonfr_verification_worker.py",  # adds the folder of a baseline
    "tools/evaluation_checks/old_scipy.py",  # adds a folder that the user names
    "tools/interchange_checks/gluonfr_worker.py",  # adds the folder of an unpacked package
)

# Exceptions: rule -> prefixes of findings. A test fails for an unused exception.
EXCEPTIONS: dict[str, tuple[str, ...]] = {}


def python_files(*folders: str) -> list[Path]:
    """Return the Python files in the root folder and in ``folders``."""
    found = [ROOT / f"{name}.py" for name in MODULES]
    for folder in folders:
        found += sorted((ROOT / folder).rglob("*.py"))
    return [path for path in found if path.is_file()]


def sources() -> list[Path]:
    """Return all Python files outside tests/."""
    return python_files(*PACKAGES, *PROGRAMS)


def place_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def module_of(place: str) -> str:
    return place.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


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


def longest(name: str, names: object) -> str | None:
    return max((n for n in names if fits(name, n)), key=len, default=None)


def wrong_imports(source: str, place: str) -> list[str]:
    """Return a finding ``<file>:<line> imports <module>; <rule>`` for each forbidden import."""
    module = module_of(place)
    folder = longest(module, ALLOWED)
    assert folder, f"{place}: no rule for this folder; add it to ALLOWED"
    found = []
    for line, name in imports(source, place):
        top = name.split(".")[0]
        named = longest(name, ONLY_IMPORTERS)
        if named and module not in ONLY_IMPORTERS[named] and not fits(module, named):
            may = " and ".join(ONLY_IMPORTERS[named])
            found.append(f"{place}:{line} imports {named}; only {may} may")
        elif top in ("mxnet", "nvidia") and longest(module, PURE):
            found.append(f"{place}:{line} imports {top}; it may import neither MXNet nor DALI")
        elif top == "mxnet" and module in WITHOUT_MXNET:
            found.append(f"{place}:{line} imports mxnet; it may import DALI only")
        elif top in OURS and not any(fits(name, a) for a in (folder, *ALLOWED[folder])):
            what = longest(name, ALLOWED) or top
            listing = ", ".join(ALLOWED[folder]) or "no module of this repository"
            found.append(f"{place}:{line} imports {what}; {folder} may import only: {listing}")
    return found


def dependencies() -> dict[str, set[str]]:
    """Return the modules of this repository that each module imports."""
    files = {module_of(place_of(path)): path for path in sources()}
    graph = {}
    for module, path in files.items():
        named = (name for _, name in imports(path.read_text(), place_of(path)))
        graph[module] = {m for name in named if (m := longest(name, files)) and m != module}
    return graph


def import_cycles() -> list[str]:
    """Return ``<file>: <module> -> ... -> <module>`` for each module in an import cycle."""
    graph, found = dependencies(), []
    for module in graph:
        paths, seen = [[module]], set()
        while paths:
            path = paths.pop()
            if module in graph[path[-1]]:
                found.append(f"{module.replace('.', '/')}: {' -> '.join([*path, module])}")
                break
            paths += [[*path, m] for m in graph[path[-1]] - seen]
            seen |= graph[path[-1]]
    return found


def long_files() -> list[str]:
    counts = {place_of(path): len(path.read_text().splitlines()) for path in sources()}
    return [place for place, count in counts.items() if count > MAX_LINES]


def star_tuple_calls() -> list[str]:
    starred = re.compile(r"^ *\*\(", re.M)
    return [place_of(path) for path in sources() if starred.search(path.read_text())]


def modules_without_a_test() -> list[str]:
    found = []
    for path in python_files(*MIRRORED)[len(MODULES) :]:
        place = Path(place_of(path))
        test = ROOT / "tests" / place.parent / f"test_{place.name}"
        if place.name != "__init__.py" and not test.is_file():
            found.append(place.as_posix())
    return found


def heads_elsewhere() -> list[str]:
    """Return ``<file>: <loss>`` for each loss whose file has another name."""
    from heads import HEADS

    modules = {name: head.__module__ for name, head in HEADS.items()}
    return [
        f"{module.replace('.', '/')}.py: {name}"
        for name, module in modules.items()
        if module != f"heads.{name}"
    ]


def changes_of_sys_path() -> list[str]:
    places = map(place_of, [*sources(), *python_files("tests")[len(MODULES) :]])
    changes = re.compile(r"\bsys\.path(\.|\[.*\] *=| *\+?= )")
    return [
        place
        for place in places
        if place not in MAY_CHANGE_SYS_PATH and changes.search((ROOT / place).read_text())
    ]


def wrong_imports_anywhere() -> list[str]:
    return [s for path in sources() for s in wrong_imports(path.read_text(), place_of(path))]


RULES = {
    "imports": wrong_imports_anywhere,
    "cycles": import_cycles,
    "lines": long_files,
    "star-tuples": star_tuple_calls,
    "tests": modules_without_a_test,
    "heads": heads_elsewhere,
    "sys.path": changes_of_sys_path,
}


@pytest.mark.parametrize("rule", RULES)
def test_the_tree_follows(rule):
    findings, exceptions = RULES[rule](), EXCEPTIONS.get(rule, ())
    wrong = [place for place in findings if not place.startswith(exceptions)]
    assert not wrong, "\n" + "\n".join(wrong)
    unused = [e for e in exceptions if not any(place.startswith(e) for place in findings)]
    assert not unused, f"remove from EXCEPTIONS[{rule!r}]: {unused}"


def test_every_python_file_is_in_a_folder_with_rules():
    listed = {place_of(path) for path in (*sources(), *python_files("tests"))}
    existing = {
        place_of(path)
        for path in ROOT.rglob("*.py")
        if not path.relative_to(ROOT).parts[0].startswith((".", "data", "runs", "results"))
    }
    assert existing <= listed, sorted(existing - listed)


def test_a_forbidden_import_is_reported_with_file_and_line():
    source = "import math\n\n\ndef late():\n    from training import step\n"
    assert wrong_imports(source, "heads/arcface.py") == [
        "heads/arcface.py:5 imports training; heads may import only: launch.ranks, ops, ranges"
    ]
    assert wrong_imports(
        "from launch.config.configuration import Config\n", "training/loop.py"
    ) == [
        "training/loop.py:1 imports launch; training may import only: launch.ranks, heads.shard, "
        "atomic_write, mxnet_arrays, normalization, plain_yaml"
    ]
    assert wrong_imports("from launch.ranks import comm\n", "training/loop.py") == []
    assert wrong_imports("from pipeline.loader import Loader\n", "pipeline/decode/native.py") == [
        "pipeline/decode/native.py:1 imports pipeline; pipeline.decode may import only: "
        "pipeline.records, pipeline.sampling, atomic_write, encoded_images, normalization, ops"
    ]
    assert wrong_imports("import mxnet as mx\n", "pipeline/sampling/samplers.py") == [
        "pipeline/sampling/samplers.py:1 imports mxnet; it may import neither MXNet nor DALI"
    ]
    assert wrong_imports(
        "from .open import x\nfrom ..decode import y\n", "pipeline/records/a.py"
    ) == [
        "pipeline/records/a.py:2 imports pipeline.decode; pipeline.records may import only: "
        "atomic_write, encoded_images, image_headers, ops, regular_file"
    ]
    assert wrong_imports("from assemble.run import open_run\n", "tools/some.py") == [
        "tools/some.py:1 imports assemble; only run_train may"
    ]
    assert wrong_imports("from assemble.run import open_run\n", "assemble/model.py") == []
    assert wrong_imports("import pipeline\n", "run_train.py") == [
        "run_train.py:1 imports pipeline; run_train may import only: assemble, launch, training"
    ]


def test_only_the_listed_modules_may_import_horovod_and_dali():
    assert wrong_imports("import horovod.mxnet as hvd\n", "training/loop.py") == [
        "training/loop.py:1 imports horovod; only launch.ranks.comm may"
    ]
    server = "from horovod.runner.http.http_server import RendezvousServer\n"
    assert wrong_imports(server, "launch/launchers/rendezvous.py") == []
    assert wrong_imports(server, "launch/ranks/comm.py") == [
        "launch/ranks/comm.py:1 imports horovod.runner; only launch.launchers.rendezvous may"
    ]
    assert wrong_imports("import horovod.mxnet\n", "launch/launchers/rendezvous.py") == [
        "launch/launchers/rendezvous.py:1 imports horovod; only launch.ranks.comm may"
    ]
    assert wrong_imports("import nvidia.dali.fn\n", "pipeline/decode/dali_reader.py") == []
    assert wrong_imports("import nvidia.dali.fn\n", "pipeline/loader.py") == [
        "pipeline/loader.py:1 imports nvidia; only pipeline.decode.dali and "
        "pipeline.decode.dali_reader may"
    ]


def modules() -> list[str]:
    """Return the modules that are not programs."""
    return [
        module_of(place_of(path))
        for path in sources()
        if place_of(path).split("/")[0].removesuffix(".py") in (*PACKAGES, *MODULES[1:])
        and path.name != "__main__.py"
    ]


LOAD = "import importlib, sys; [importlib.import_module(m) for m in sys.argv[1:]]\n"
LOAD += "print({'mxnet', 'nvidia.dali', 'horovod'} & set(sys.modules))"


def test_pure_modules_load_neither_mxnet_nor_dali_nor_horovod():
    pure = [module for module in modules() if longest(module, PURE)]
    # The commands for record sets start a second earlier without MXNet.  Only `shuffle` loads it,
    # with training.run_folder.
    tools = [name for name in map(module_of, map(place_of, sources())) if fits(name, "tools.data")]
    pure += [name for name in tools if "shuffl" not in name]
    assert {p for p in PURE if not any(fits(module, p) for module in pure)} == set()
    assert "tools.data.commands.check" in pure
    done = subprocess.run(
        [sys.executable, "-c", LOAD, *pure], capture_output=True, text=True, check=True
    )
    assert done.stdout == "set()\n"


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
        print("the import of", name, "starts threads:", started)
if {s: signal.getsignal(s) for s in handlers} != handlers:
    print("an import sets signal handlers")
if random.random() != random.Random(1).random():
    print("an import draws from random")
if numpy.random.random() != numpy.random.RandomState(1).random_sample():
    print("an import draws from numpy.random")
if "horovod" in sys.modules:
    print("an import loads Horovod, which a single process does not need")
"""


def test_imports_have_no_side_effects(tmp_path):
    names = modules()
    for hook in ("numpy_aliases", "cuda_libraries"):  # they set a hook at import on purpose
        names.remove(f"launch.environment.{hook}")
    done = subprocess.run(
        [sys.executable, "-c", IMPORT_ALL, *names],
        cwd=tmp_path,
        env={
            "PATH": "/usr/bin:/bin",
            "PYTHONDONTWRITEBYTECODE": "1",
            "LD_LIBRARY_PATH": os.environ.get("LD_LIBRARY_PATH", ""),
        },
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert not list(tmp_path.iterdir())
