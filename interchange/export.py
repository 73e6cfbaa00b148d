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
    if format == "onnx":
        return _export_onnx(model, out, scaling, with_centres)
    if format == "symbol":
        from interchange.write_symbol import write_symbol

        write_symbol(model, out, with_centres=with_centres)
        return [Path(f"{out}-symbol.json"), Path(f"{out}-0000.params")]
    if with_centres:
        raise InterchangeError(
            f"{out}: safetensors files contain the network only, got --with-centres; omit the "
            "option, or export to onnx or symbol"
        )
    from interchange.write_safetensors import write_safetensors

    write_safetensors(model, out)
    return [out]


def _export_onnx(
    model: StoredModel, path: Path, scaling: Scaling, with_centres: bool
) -> list[Path]:
    from interchange.net_graph import model_graph
    from interchange.onnx_export import OnnxSettings, write_onnx
    from interchange.write_symbol import find_centres

    centres = find_centres(model) if with_centres else None
    settings = OnnxSettings(model.image_size, scaling, metadata={}, class_centres=centres)
    write_onnx(model_graph(model), path, embed=_mxnet_embed(model), settings=settings)
    return [path]


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
