# SPDX-License-Identifier: Apache-2.0
"""Save and load networks of arcface_torch, in an environment with PyTorch.

    python -I torch_worker.py BACKBONES save NAME FOLDER
    python -I torch_worker.py BACKBONES load NAME FOLDER

`tools.interchange_checks.arcface_torch` starts this program.  FOLDER has pixels.npy, uint8 images
(N, 112, 112, 3).  ``save`` draws random weights, and writes them in both formats of ``torch.save``
and as .safetensors.  It writes the embeddings as embeddings.npy.  ``load`` loads
exported.safetensors with strict=True, and writes the embeddings as loaded.npy.
"""

from __future__ import annotations

import importlib
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file


def build(backbones: Path, name: str) -> Any:
    """Build a network of arcface_torch from its name, for example "r18" or "mbf".

    "mbf1" is MobileFaceNet with scale=1.
    """
    package = types.ModuleType("backbones")  # skips __init__.py, which imports other packages
    package.__path__ = [str(backbones)]
    sys.modules["backbones"] = package
    if name.startswith("mbf"):
        module = importlib.import_module("backbones.mobilefacenet")
        if name == "mbf_large":
            return module.get_mbf_large(False, 512)
        return module.get_mbf(False, 512, scale=1 if name == "mbf1" else 2)
    build_net = getattr(importlib.import_module("backbones.iresnet"), f"iresnet{name[1:]}")
    return build_net(num_features=512)


def draw(net: Any) -> None:
    """Draw the weights, the running statistics and the PReLU slopes of a network at random."""
    torch.manual_seed(1)
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm1d | torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.normal_(module.bias, 0, 0.3)
            torch.nn.init.normal_(module.running_mean, 0, 0.3)
            torch.nn.init.uniform_(module.running_var, 0.5, 2)
        elif isinstance(module, torch.nn.PReLU):
            torch.nn.init.uniform_(module.weight, 0, 0.5)
        elif isinstance(module, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(module.weight)
        elif isinstance(module, torch.nn.Linear) and module.bias is not None:
            torch.nn.init.normal_(module.bias)


def embed(net: Any, folder: Path) -> np.ndarray:
    """Return the normalised embeddings (N, E) of the images in a folder."""
    pixels = torch.from_numpy(np.load(folder / "pixels.npy")).permute(0, 3, 1, 2)
    with torch.no_grad():
        embeddings = net.eval()((pixels.float() / 255 - 0.5) / 0.5)
    return torch.nn.functional.normalize(embeddings).numpy()


def main(backbones: str, action: str, name: str, target: str) -> None:
    """Save or load one network; ``action`` is "save" or "load"."""
    net, folder = build(Path(backbones), name), Path(target)
    if action == "load":
        net.load_state_dict(load_file(folder / "exported.safetensors"), strict=True)
        np.save(folder / "loaded.npy", embed(net, folder))
        return
    draw(net)
    np.save(folder / "embeddings.npy", embed(net, folder))
    state = net.state_dict()
    torch.save(state, folder / "zip.pth")
    nested = {"epoch": 1, "state_dict": {f"module.{key}": state[key] for key in state}}
    torch.save(nested, folder / "legacy.pth", _use_new_zipfile_serialization=False)
    save_file(state, folder / "foreign.safetensors")


if __name__ == "__main__":
    main(*sys.argv[1:])
