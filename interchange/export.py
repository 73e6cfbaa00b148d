# SPDX-License-Identifier: Apache-2.0
"""Export a stored model to files of other programs, with a model card beside them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from interchange.model import InterchangeError, StoredModel

if TYPE_CHECKING:
    import numpy as np

    from interchange.onnx_export import Scaling

FORMATS = ("symbol", "onnx", "safetensors")


def export_model(
    model: StoredModel,
    out: Path,
    *,
    format: str,
    scaling: Scaling = "inside",
    with_centres: bool = False,
) -> list[Path]:
    """Write a model and its model card; return the paths of the files.

    The files appear only after another program has computed the same embeddings from them.

    Parameters
    ----------
    out
        File to write; for "symbol" the prefix of the files.
    format
        One of FORMATS.
    scaling
        Only for "onnx": "inside" for a file that takes pixels, "outside" for one that takes
        (x - 127.5) / 127.5 for pixels x.
    with_centres
        Add the class centres of the head under the name "fc7".

    Raises
    ------
    InterchangeError
        If the format does not support the model, or computes other embeddings.
    OSError
        If a file cannot be written.
    """
    centres = class_centres(model) if with_centres else None
    if format == "onnx":
        return [_export_onnx(model, out, scaling, centres)]
    if format == "symbol":
        from interchange.write_symbol import write_symbol

        return list(write_symbol(model, out, centres=centres))
    from interchange.write_safetensors import write_safetensors

    write_safetensors(model, out)
    return [out]


def class_centres(model: StoredModel) -> np.ndarray:
    """Return the class centres (C, E) of a model's head.

    Raises
    ------
    InterchangeError
        If the model has no class centres.
    """
    weight = model.head.get("weight")
    size = model.net["embedding_size"]
    if weight is None or weight.ndim != 2 or weight.shape[1] != size:
        raise InterchangeError(
            f"{model.source}: the head must have class centres of {size} dimensions, got "
            f"{'no head' if not model.head else ', '.join(sorted(model.head))}; omit --with-centres"
        )
    return weight


def _export_onnx(
    model: StoredModel, path: Path, scaling: Scaling, centres: np.ndarray | None
) -> Path:
    from interchange.net_graph import model_graph
    from interchange.onnx_export import OnnxSettings, write_onnx

    settings = OnnxSettings(model.image_size, scaling, metadata={}, class_centres=centres)
    write_onnx(model_graph(model), path, embed=_mxnet_embed(model), settings=settings)
    return path


def _mxnet_embed(model: StoredModel) -> Callable[[np.ndarray], np.ndarray]:
    """Return a function that computes the embeddings of (B, 3, H, W) float32 in MXNet."""
    import mxnet as mx

    from interchange.stored_net import build_stored_net

    net = build_stored_net(model)
    net.hybridize(static_alloc=True)

    def embed(values: np.ndarray) -> np.ndarray:
        with mx.autograd.pause(train_mode=False):
            return net(mx.nd.array(values)).asnumpy()

    return embed
