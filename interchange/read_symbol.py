# SPDX-License-Identifier: Apache-2.0
"""Read MXNet's symbol and parameter files into a stored model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from interchange.graph_net import stored_model
from interchange.input_contract import Values, adapt_input, has_scaling, pixel_function
from interchange.model import InterchangeError, StoredModel
from interchange.mxnet_symbol import read_symbol_files
from interchange.net_graph import simplify
from interchange.symbol_function import symbol_function
from normalization import MEAN, STD


def read_symbol(
    prefix: str | Path,
    *,
    image_size: tuple[int, int] | None = None,
    mean: Values | None = None,
    std: Values | None = None,
    colour_order: str = "rgb",
) -> StoredModel:
    """Read ``PREFIX-symbol.json`` and the ``PREFIX-<epoch>.params`` of the highest epoch.

    Parameters
    ----------
    prefix
        Prefix of both files, or the path of one of them.  If the path is that of a
        ``.params`` file, this file is read, whatever its epoch.
    image_size
        (height, width) of the images in pixels; None for the size that the symbol states or, if it
        states none, a size that fits the symbol.
    mean, std
        The input of the symbol is (x - mean) / std for pixels x.  If the symbol contains scaling,
        as InsightFace's symbols do, None stands for 0 and 1, so the input is pixels.  Otherwise
        None stands for the values of our networks, 127.5 and 128.
    colour_order
        "rgb" or "bgr": channel order of the images that the symbol expects.

    Raises
    ------
    InterchangeError
        If a file is missing or damaged, or if the files do not fit each other.
    """
    files = read_symbol_files(prefix)
    graph = simplify(files.graph)
    notices = list(files.notices)
    default: tuple[Values, Values] = (0.0, 1.0)
    if not has_scaling(graph):
        default = (MEAN, STD)
        if mean is None and std is None:
            notices.append(
                f"the symbol contains no scaling, so its input is assumed to be (x - {MEAN}) / "
                f"{STD:g} for pixels x"
            )
    mean, std = (default[0] if mean is None else mean), (default[1] if std is None else std)
    graph = adapt_input(graph, str(prefix), mean=mean, std=std, colour_order=colour_order)
    model, _ = stored_model(
        graph,
        source=str(prefix),
        kind="symbol",
        image_size=image_size,
        notices=notices,
        head={} if files.centres is None else {"weight": files.centres},
    )
    embed = symbol_function(files.symbol, files.arrays, model.image_size)
    reference = pixel_function(embed, mean=mean, std=std, colour_order=colour_order)
    size = model.net["embedding_size"]
    if files.centres is not None and files.centres.shape[1:] != (size,):
        raise InterchangeError(
            f"{prefix}: the class centres 'fc7_weight' must have {size} columns, one for each "
            f"dimension of the embedding, got the shape {files.centres.shape}; use undamaged files"
        )
    return replace(model, reference=reference)
