# SPDX-License-Identifier: Apache-2.0
"""Import the networks of InsightFace's MXNet code, and export them again as a symbol."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import json
import subprocess
import sys
import types
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import mxnet as mx
import numpy as np

from interchange.comparison import model_function, random_pixels
from interchange.open_model import open_model
from interchange.write_checkpoint import write_checkpoint
from interchange.write_symbol import write_symbol
from tools.interchange_checks.result import Result

SYMBOLS = Path("recognition") / "arcface_mxnet"
IMAGES = 8
CLASSES = 10
NETWORKS: dict[str, tuple[str, dict[str, Any], str]] = {
    "y1": ("y1", {}, "mobilefacenet"),
    "r18": ("r50", {"num_layers": 18}, "iresnet18"),
    "r34": ("r50", {"num_layers": 34}, "iresnet34"),
    "r50": ("r50", {}, "iresnet50"),
    "r74": ("r50", {"num_layers": 74}, "iresnet100"),
    "r100": ("r100", {}, "iresnet100"),
    "r100fc": ("r100fc", {}, "iresnet100"),
    "r18, embedding 256": ("r50", {"num_layers": 18, "emb_size": 256}, "iresnet18"),
    "r50v1": ("r50v1", {}, "iresnet50"),
    "r50, se": ("r50", {"net_se": 1}, "iresnet50"),
    "r50, relu": ("r50", {"net_act": "relu"}, "graph"),
    "r50, input 2": ("r50", {"net_input": 2}, "graph"),
    "r50, output F": ("r50", {"net_output": "F"}, "iresnet50"),
    "r50, output GAP": ("r50", {"net_output": "GAP"}, "iresnet50"),
    "r50, output GNAP": ("r50", {"net_output": "GNAP"}, "graph"),
    "y1, output GNAP": ("y1", {"net_output": "GNAP", "emb_size": 512}, "graph"),
    "y2": ("y2", {}, "mobilefacenet_y2"),
    "m1": ("m1", {}, "mobilenet_v1"),
    "m05": ("m05", {}, "mobilenet_v1"),
    "mnas": ("mnas", {}, "mnasnet"),
    "mnas05": ("mnas05", {}, "mnasnet"),
    "mnas025": ("mnas025", {}, "mnasnet"),
    "d169": ("d169", {}, "densenet169"),
    "d201": ("d201", {}, "densenet201"),
    "vargfacenet": ("vargfacenet", {}, "vargfacenet"),
}
"""Mapping from the name of a result to a triple.

The triple is: name of the network in sample_config.py, changed settings, our name of the network.
"""
WITH_FIXED_GAMMAS = ("y1", "r18", "m05")
"""Names of the networks that are also checked with all gammas fixed, and with none fixed."""


class Settings(dict):
    """Dict whose items are also attributes, which InsightFace's configuration needs."""

    def __getattr__(self, name: str) -> Any:
        return self[name]

    def __setattr__(self, name: str, value: Any) -> None:
        self[name] = value


def run(checkout: Path, folder: Path, only: Sequence[str]) -> Iterator[Result]:
    """Yield the result of each network.

    Networks in ``WITH_FIXED_GAMMAS`` have two more results: with ``fix_gamma`` True in every batch
    normalisation, and with False in every one.

    Parameters
    ----------
    checkout
        Clone of github.com/deepinsight/insightface.
    folder
        Folder for the files of the models.
    only
        Names of the networks, keys of ``NETWORKS``; an empty sequence for all.
    """
    for name, (config, changes, expected) in NETWORKS.items():
        if only and name not in only:
            continue
        symbol = build_symbol(checkout / SYMBOLS, config, changes)
        for seed, fixed in enumerate((None, True, False)):
            if fixed is not None and name not in WITH_FIXED_GAMMAS:
                continue
            label = name if fixed is None else f"{name}, fix_gamma {fixed}"
            own = symbol if fixed is None else with_fixed_gammas(symbol, fixed)
            yield compare(label, own, expected, folder / "model", seed)


def compare(name: str, symbol: mx.sym.Symbol, expected: str, prefix: Path, seed: int) -> Result:
    """Save a symbol as InsightFace does, import and export it, and compare all embeddings."""
    arguments, states = random_parameters(symbol, seed)
    size = symbol.infer_shape(data=(1, 3, 112, 112))[1][0][1]
    centres = mx.nd.random.normal(shape=(CLASSES, size))
    mx.model.save_checkpoint(
        str(prefix), 0, symbol, {**arguments, "fc7_weight": centres}, states, remove_amp_cast=False
    )
    pixels = random_pixels((112, 112), IMAGES)
    calibrate(prefix, pixels, seed)
    original = compute(prefix, pixels)
    model = open_model(prefix)
    found = normalised(model_function(model)(pixels))
    differences = {"import": np.abs(found - original).max()}
    again = prefix.with_name("exported")
    write_symbol(model, again, with_centres=True)
    exported = open_model(again)
    differences["export"] = np.abs(normalised(model_function(exported)(pixels)) - original).max()
    saved = prefix.with_name(f"checkpoint-{len(list(prefix.parent.iterdir()))}")
    differences["checkpoint"] = write_checkpoint(model, saved) or 0.0
    assert np.array_equal(exported.head["weight"], centres.asnumpy())
    note = ", ".join(f"{what} {value:.1e}" for what, value in differences.items())
    same = model.net["name"] == exported.net["name"] == expected
    return Result(name, model.net["name"], float(max(differences.values())), same, note)


def build_symbol(folder: Path, name: str, changes: Mapping[str, Any]) -> mx.sym.Symbol:
    """Build a symbol with InsightFace's code and sample_config.py, with changed settings."""
    if not (folder / "sample_config.py").is_file():
        raise SystemExit(
            f"{folder}: must be InsightFace's MXNet code, got no sample_config.py; pass the folder "
            "of a clone of github.com/deepinsight/insightface"
        )
    sys.modules["easydict"] = types.SimpleNamespace(EasyDict=Settings)  # type: ignore[assignment]
    sys.modules.setdefault("sklearn", types.ModuleType("sklearn"))  # only imported, never used
    config = load_module(folder / "sample_config.py", "config")
    chosen = {**config.network[name], **changes}
    config.config.update(chosen)
    config.config.per_batch_size = IMAGES
    with contextlib.redirect_stdout(io.StringIO()):
        for module in ("symbol_utils", "memonger"):
            load_module(folder / "symbol" / f"{module}.py", module)
        source = folder / "symbol" / f"{chosen['net_name']}.py"
        return load_module(source, chosen["net_name"]).get_symbol()


def load_module(path: Path, name: str) -> Any:
    """Load a Python file as the module ``name``, in place of an earlier module of that name."""
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    sys.modules[name] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def with_fixed_gammas(symbol: mx.sym.Symbol, fixed: bool) -> mx.sym.Symbol:
    """Return a copy of a symbol in which each batch normalisation has ``fix_gamma=fixed``."""
    content = json.loads(symbol.tojson())
    for node in content["nodes"]:
        if node["op"] == "BatchNorm":
            node["attrs"]["fix_gamma"] = str(fixed)
    return mx.sym.load_json(json.dumps(content))


def random_parameters(symbol: mx.sym.Symbol, seed: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Draw all arguments and auxiliary states of a symbol at random, gammas and slopes included."""
    random = np.random.default_rng(seed)

    def draw(name: str, shape: tuple[int, ...]) -> np.ndarray:
        if len(shape) > 1:
            return random.normal(size=shape) * np.sqrt(2 / np.prod(shape[1:]))
        if "relu" in name:
            return random.uniform(0, 0.5, shape)
        positive = name.endswith(("gamma", "var"))
        return random.uniform(0.5, 1.5, shape) if positive else random.normal(size=shape) * 0.1

    given, _, states = symbol.infer_shape(data=(1, 3, 112, 112))
    arguments = zip(symbol.list_arguments(), given, strict=True)
    auxiliary = zip(symbol.list_auxiliary_states(), states, strict=True)
    return (
        {name: mx.nd.array(draw(name, shape)) for name, shape in arguments if name != "data"},
        {name: mx.nd.array(draw(name, shape)) for name, shape in auxiliary},
    )


CALIBRATE = """
import json, sys
import mxnet as mx, numpy as np
prefix, pixels, seed = sys.argv[1:]
symbol, arguments, states = mx.model.load_checkpoint(prefix, 0)
content = json.loads(symbol.tojson())
for node in content["nodes"]:
    if node["op"] == "BatchNorm":
        node["attrs"]["momentum"] = "0"
training = mx.sym.load_json(json.dumps(content))
values = {name: arguments[name] for name in symbol.list_arguments() if name != "data"}
values["data"] = mx.nd.array(np.load(pixels))
gradients = {name: mx.nd.zeros(value.shape) for name, value in values.items()}
executor = training.bind(mx.cpu(), values, args_grad=gradients, aux_states=states)
output = executor.forward(is_train=True)[0]
executor.backward(mx.nd.zeros(output.shape))  # MXNet updates the statistics in the backward pass
mx.nd.waitall()
states = executor.aux_dict
random = np.random.default_rng(int(seed))
for name, state in states.items():
    if name.endswith("var"):
        mean = states[name[:-3] + "mean"]
        spread = np.sqrt(state.asnumpy())
        mean[:] = mean.asnumpy() + spread * random.uniform(-0.3, 0.3, spread.shape)
        state[:] = spread**2 * random.uniform(0.6, 1.6, spread.shape)
mx.model.save_checkpoint(prefix, 0, symbol, arguments, states, remove_amp_cast=False)
"""


def calibrate(prefix: Path, pixels: np.ndarray, seed: int) -> None:
    """Replace the running statistics in saved files by statistics of images, randomly changed.

    With arbitrary statistics the activations of a deep network grow without bound.  Then MXNet's
    own results with and without oneDNN's fusion differ by more than 0.01.
    """
    given = prefix.with_name("pixels.npy")
    np.save(given, pixels)
    command = [sys.executable, "-c", CALIBRATE, str(prefix), str(given), str(seed)]
    subprocess.run(command, check=True, capture_output=True)


COMPUTE = """
import sys
import mxnet as mx, numpy as np
prefix, pixels, out = sys.argv[1:]
symbol, arguments, states = mx.model.load_checkpoint(prefix, 0)
arguments = {name: arguments[name] for name in symbol.list_arguments() if name != "data"}
arguments["data"] = mx.nd.array(np.load(pixels))
executor = symbol.bind(mx.cpu(), arguments, aux_states=states, grad_req="null")
np.save(out, executor.forward(is_train=False)[0].asnumpy())
"""


def compute(prefix: Path, pixels: np.ndarray) -> np.ndarray:
    """Compute normalised embeddings in a separate process, without code of this project.

    If one process computes several networks, MXNet may cause a segmentation fault, see
    `interchange.symbol_function.reshape_vectors`.
    """
    given, out = prefix.with_name("pixels.npy"), prefix.with_name("embeddings.npy")
    np.save(given, pixels)
    command = [sys.executable, "-c", COMPUTE, str(prefix), str(given), str(out)]
    subprocess.run(command, check=True, capture_output=True)
    return normalised(np.load(out))


def normalised(embeddings: np.ndarray) -> np.ndarray:
    """Scale embeddings (B, E) to L2 norm 1."""
    return embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
