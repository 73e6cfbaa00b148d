# SPDX-License-Identifier: Apache-2.0
"""Read ONNX files into a stored model."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from interchange.file_format import find_format
from interchange.graph_net import stored_model
from interchange.input_contract import Values, adapt_input, has_scaling
from interchange.model import InterchangeError, StoredModel
from interchange.net_graph import simplify
from interchange.norm_statistics import with_statistics
from interchange.onnx_file import input_size, load_onnx
from interchange.onnx_graph import onnx_graph
from interchange.recognise import USUAL_IMAGE_SIZE

INPUT_MEAN = INPUT_STD = 127.5
"""Default mean and divisor for the input of ONNX files without scaling, as in insightface."""
MAX_SIDE_PIXELS = 1024


def read_onnx(
    path: str | Path,
    *,
    image_size: tuple[int, int] | None = None,
    mean: Values | None = None,
    std: Values | None = None,
    colour_order: str | None = None,
    calibration_images: np.ndarray | None = None,
) -> StoredModel:
    """Read a face network from an ONNX file.

    Parameters
    ----------
    path
        Path of the file.
    image_size
        (height, width) of the images in pixels; None for the size that the file states.
    mean, std
        The input of the file is (x - mean) / std for pixels x.  If the file contains scaling, None
        stands for 0 and 1, so the input is pixels.  Otherwise None stands for 127.5.
    colour_order
        "rgb" or "bgr"; None for "rgb".
    calibration_images
        Pixels (N, height, width, 3) uint8 in RGB; None for random noise.  The statistics of batch
        normalisations that the file has folded into convolutions are computed from these images.

    Raises
    ------
    InterchangeError
        If the file is damaged, or contains a network that MXNet cannot compute.
    OSError
        If the file cannot be read.
    """
    model = load_onnx(path)
    stated = input_size(model, path)
    size = image_size or stated or USUAL_IMAGE_SIZE
    if stated and size != stated:
        raise InterchangeError(
            f"{path}: the image size must be that of the file, {stated[0]}x{stated[1]} pixels, got "
            f"{size[0]}x{size[1]}; omit the image size"
        )
    if max(size) > MAX_SIDE_PIXELS:
        raise InterchangeError(
            f"{path}: images have at most {MAX_SIDE_PIXELS} pixels per side, got "
            f"{size[0]}x{size[1]}; use a network for face images"
        )
    graph = simplify(onnx_graph(model, path, size))
    scaled = has_scaling(graph)
    notices = []
    if not scaled and mean is None and std is None:
        notices.append(
            f"the file contains no scaling, so its input is assumed to be (x - {INPUT_MEAN}) / "
            f"{INPUT_STD} for pixels x"
        )
    default = (0.0, 1.0) if scaled else (INPUT_MEAN, INPUT_STD)
    graph = adapt_input(
        graph,
        str(path),
        mean=default[0] if mean is None else mean,
        std=default[1] if std is None else std,
        colour_order=colour_order or "rgb",
    )
    metadata = {item.key: item.value for item in model.metadata_props}
    stored, folded = stored_model(
        graph,
        source=str(path),
        kind="onnx",
        image_size=size,
        notices=notices,
        threshold=_stated_threshold(metadata.get("threshold", "")),
    )
    _check_images(calibration_images, stored, path)
    return with_statistics(stored, folded, calibration_images) if folded else stored


def stated_image_size(path: str | Path) -> tuple[int, int] | None:
    """Return the (height, width) in pixels that an ONNX file states for its input.

    The result is None if the file states no size, or if the path is not that of an ONNX file.

    Raises
    ------
    InterchangeError
        If the file is a damaged ONNX file.
    OSError
        If the file cannot be read.
    """
    path = Path(path)
    if not path.is_file() or find_format(path) != "onnx":
        return None
    return input_size(load_onnx(path), path)


def _stated_threshold(text: str) -> float | None:
    """Return the cosine that a text states; None if the text states no valid one."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if -1 <= value <= 1 else None


def _check_images(images: np.ndarray | None, model: StoredModel, path: str | Path) -> None:
    if images is None:
        return
    wanted = (*model.image_size, 3)
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1:] != wanted:
        raise InterchangeError(
            f"{path}: images for the calibration must be uint8 of shape (N, {wanted[0]}, "
            f"{wanted[1]}, 3), got {images.dtype} {images.shape}; align faces to that size"
        )
    if len(images) < 2:
        raise InterchangeError(
            f"{path}: the calibration needs at least 2 images, got {len(images)}; use several "
            "hundred images"
        )
