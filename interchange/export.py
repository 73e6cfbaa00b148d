# SPDX-License-Identifier: Apache-2.0
"""Export a stored model to files for other programs, with a model card beside them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import normalization
from interchange.model import InterchangeError, StoredModel
from interchange.model_card import model_card, write_model_card

if TYPE_CHECKING:
    import numpy as np

    from interchange.onnx_export import Scaling

FORMATS = ("symbol", "onnx", "safetensors")


@dataclass(frozen=True)
class Provenance:
    """Facts that the model card states; ONNX and safetensors files state them too."""

    licence: str | None = None
    """Licence of the weights; None if unknown."""
    commit: str | None = None
    """Git commit of this program; None if unknown."""


def export_model(
    model: StoredModel,
    out: Path,
    *,
    format: str,
    scaling: Scaling = "inside",
    with_centres: bool = False,
    provenance: Provenance | None = None,
    notify: Callable[[str], object] | None = None,
) -> list[Path]:
    """Write a model and its model card; return the paths of the files.

    The files get their final names only after another program, or a reader of this project, has
    read the same network from them.

    Parameters
    ----------
    out
        File to write; for "symbol" the prefix of the files.
    format
        One of FORMATS.
    scaling
        Only for "onnx": what the exported network takes for pixels x from 0 to 255.  "inside": x
        itself.  "outside": (x - 127.5) / 127.5.
    with_centres
        Add an output "fc7": the cosines between the embedding and the class centres of the head.
        The format "safetensors" refuses this.
    notify
        Function that gets each sentence that the user of the files should read, for example if
        arcface_torch expects another image size.

    Raises
    ------
    InterchangeError
        If the format does not support the model, if the files give other embeddings, or if a file
        cannot be written.
    """
    facts = provenance or Provenance()
    stated = {"licence": facts.licence, "commit": facts.commit}
    # Make the card here and discard it: if its text cannot be made, no file is written.
    model_card(model, out.name, {}, **stated)
    if format == "onnx":
        files, contract = _export_onnx(model, out, scaling, with_centres, facts)
    elif format == "symbol":
        files, contract = _export_symbol(model, out, with_centres)
    else:
        files, contract, notices = _export_safetensors(model, out, with_centres, facts)
        if notify:
            for notice in notices:
                notify(notice)
    return [*files, write_model_card(model, out, contract, **stated)]


def _metadata(model: StoredModel, facts: Provenance) -> dict[str, str]:
    """Return the facts about a model that the exported file states."""
    found = {
        "net": str(model.net["name"]),
        "embedding_size": str(model.net["embedding_size"]),
        "licence": facts.licence or "not stated",
    }
    if facts.commit:
        found["commit"] = facts.commit
    if model.threshold is not None:
        found["threshold"] = repr(model.threshold)
    return found


def _export_onnx(
    model: StoredModel, path: Path, scaling: Scaling, with_centres: bool, facts: Provenance
) -> tuple[list[Path], Mapping[str, str]]:
    from interchange.comparison import model_function
    from interchange.net_graph import model_graph
    from interchange.onnx_export import OnnxSettings, onnx_contract, write_onnx
    from interchange.write_symbol import find_centres

    centres = find_centres(model) if with_centres else None
    settings = OnnxSettings(model.image_size, scaling, _metadata(model, facts), centres)
    compute = model_function(model)

    def embed(values: np.ndarray) -> np.ndarray:
        return compute(values * normalization.STD + normalization.MEAN)

    write_onnx(model_graph(model), path, embed=embed, settings=settings)
    return [path], onnx_contract(settings)


def _export_symbol(
    model: StoredModel, prefix: Path, with_centres: bool
) -> tuple[list[Path], Mapping[str, str]]:
    from interchange.write_symbol import write_symbol

    write_symbol(model, prefix, with_centres=with_centres)
    contract = {
        "image_size": "{}x{}".format(*model.image_size),
        "colour_order": "RGB",
        "layout": "NCHW",
        "value_range": "pixels from 0 to 255",
        "scaling": "inside",
        "output": "fc1_output: embedding, not normalised",
    }
    return [Path(f"{prefix}-symbol.json"), Path(f"{prefix}-0000.params")], contract


def _export_safetensors(
    model: StoredModel, path: Path, with_centres: bool, facts: Provenance
) -> tuple[list[Path], Mapping[str, str], tuple[str, ...]]:
    """Write the file.

    Return three values: a list with the path, the facts for the model card, and the notices.
    """
    if with_centres:
        raise InterchangeError(
            f"{path}: a safetensors file contains the network alone, got a request for class "
            "centres; omit --with-centres, or export to onnx or symbol"
        )
    from interchange.write_safetensors import torch_contract, write_safetensors

    notices = write_safetensors(model, path, _metadata(model, facts))
    return [path], torch_contract(model), notices
