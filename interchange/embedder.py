# SPDX-License-Identifier: Apache-2.0
"""Compute embeddings of face images with a model of any supported format."""

from __future__ import annotations

import os
from collections.abc import Callable
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np

import normalization
from interchange.model import InterchangeError, StoredModel
from interchange.open_model import open_model

if TYPE_CHECKING:
    import onnx
    import onnxruntime

Forward = Callable[[np.ndarray], np.ndarray]
"""Function from RGB pixels (B, H, W, 3) uint8 to embeddings (B, E) float32, not normalised."""
DEVICES = ("auto", "cpu", "gpu")
RUNTIMES = ("auto", "mxnet")
BUSY_LOAD = 1.5
"""Load average per core above which ONNX Runtime's threads do not spin while they wait."""


def load_embedder(
    model: str | os.PathLike[str] | StoredModel,
    *,
    flip: bool = False,
    batch_size: int = 64,
    device: str = "auto",
    runtime: str = "auto",
) -> Embedder:
    """Load a model, and return a function that computes embeddings of images.

    On a CPU, ONNX Runtime computes the network; on a GPU, MXNet does.  If ONNX Runtime is not
    installed, or the network has an operator that the ONNX export does not support, MXNet computes
    on the CPU as well.

    Parameters
    ----------
    model
        Path of a model, see `interchange.open_model`, or a model that has been read.
    flip
        Add the embedding of the mirror image before normalisation, as verification does.
    batch_size
        Images per forward pass.
    device
        "cpu", "gpu", or "auto" for the first GPU if MXNet finds one, and else the CPU.
    runtime
        "auto" as described above, or "mxnet" for MXNet on a CPU as well.

    Raises
    ------
    InterchangeError
        If the model cannot be read, or an argument is out of its range.
    """
    if batch_size < 1:
        raise InterchangeError(f"batch_size: must be at least 1, got {batch_size}; 64 is usual")
    if device not in DEVICES:
        raise InterchangeError(
            f"device: must be one of {', '.join(DEVICES)}, got {device!r}; 'auto' is usual"
        )
    if runtime not in RUNTIMES:
        raise InterchangeError(
            f"runtime: must be one of {', '.join(RUNTIMES)}, got {runtime!r}; 'auto' is usual"
        )
    stored = model if isinstance(model, StoredModel) else open_model(model)
    forward, library, notices = _choose_runtime(stored, device, runtime)
    return Embedder(
        stored,
        forward,
        runtime=library,
        flip=flip,
        batch_size=batch_size,
        notices=(*stored.notices, *notices),
    )


class Embedder:
    """Function from images to embeddings of L2 norm 1; `load_embedder` creates the function.

    Parameters
    ----------
    model
        Model whose properties become attributes of the function.
    forward
        Function that computes the embeddings of a batch.
    runtime
        Library that computes: "onnxruntime" or "mxnet".
    flip, batch_size
        See `load_embedder`.
    notices
        Sentences for the user, for example why MXNet computes the embeddings on a CPU.
    """

    def __init__(
        self,
        model: StoredModel,
        forward: Forward,
        *,
        runtime: str,
        flip: bool,
        batch_size: int,
        notices: tuple[str, ...] = (),
    ) -> None:
        self.source = model.source
        """Path of the file or folder of the model."""
        self.image_size = model.image_size
        """(height, width) of the images in pixels."""
        self.embedding_size = int(model.net["embedding_size"])
        """Number of dimensions E of an embedding."""
        self.threshold = model.threshold
        """Least cosine at which two images count as one person; None if the model states none."""
        self.flip, self.batch_size, self.runtime, self.notices = flip, batch_size, runtime, notices
        self._forward = forward

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Compute the embeddings of aligned face images.

        Inputs
        ------
        images : (N, height, width, 3) uint8
            RGB pixels; N may be 0.

        Outputs
        -------
        (N, E) float32
            Embeddings with L2 norm 1.

        Raises
        ------
        InterchangeError
            If the images have another type or shape, or an embedding is 0 or not finite.
        """
        raw = self.raw_embeddings(images)
        norms = np.linalg.norm(raw, axis=1, keepdims=True)
        good = np.isfinite(norms) & (norms > 0)
        if not good.all():
            index = int(np.argmin(good))
            raise InterchangeError(
                f"{self.source}: the embedding of image {index} cannot be normalised, got L2 norm "
                f"{norms[index, 0]}; check the weights of the model"
            )
        return raw / norms

    def raw_embeddings(self, images: np.ndarray) -> np.ndarray:
        """Compute embeddings that are not normalised.

        With `flip`, a result is the sum of the embeddings of an image and of its mirror image.
        Inputs, outputs and errors are those of `__call__`, but the embeddings may have any L2 norm,
        also 0 or a norm that is not finite.
        """
        self._check(images)
        found = np.empty((len(images), self.embedding_size), np.float32)
        for start in range(0, len(images), self.batch_size):
            batch = images[start : start + self.batch_size]
            part = found[start : start + self.batch_size]
            part[:] = self._forward(batch)
            if self.flip:
                part += self._forward(batch[:, :, ::-1])
        return found

    def _check(self, images: np.ndarray) -> None:
        height, width = self.image_size
        if not isinstance(images, np.ndarray):
            got = type(images).__name__
        elif images.dtype != np.uint8 or images.shape[1:] != (height, width, 3):
            got = f"{images.dtype} {images.shape}"
        else:
            return
        raise InterchangeError(
            f"images: must be RGB pixels, a NumPy array uint8 (N, {height}, {width}, 3), got {got};"
            " stack aligned faces of this size"
        )


def _choose_runtime(
    model: StoredModel, device: str, runtime: str
) -> tuple[Forward, str, tuple[str, ...]]:
    """Return the function that computes a batch, the name of its library, and notices."""
    import mxnet as mx

    gpus = mx.context.num_gpus() if device != "cpu" else 0
    if device == "gpu" and not gpus:
        raise InterchangeError("device: MXNet finds no usable GPU, got 'gpu'; use 'cpu'")
    if gpus or runtime == "mxnet":
        return _mxnet_forward(model, mx.gpu(0) if gpus else mx.cpu()), "mxnet", ()
    missing = [name for name in ("onnx", "onnxruntime") if find_spec(name) is None]
    if missing:
        reason = f"{missing[0]} is not installed"
    else:
        try:
            return _onnx_forward(model), "onnxruntime", ()
        except InterchangeError as error:
            reason = f"the ONNX export failed: {error}"
    notice = f"MXNet computes the embeddings, because {reason}"
    return _mxnet_forward(model, mx.cpu()), "mxnet", (notice,)


def _mxnet_forward(model: StoredModel, ctx: Any) -> Forward:
    """Return a function that computes the network in MXNet on the device `ctx`."""
    import mxnet as mx

    from interchange.stored_net import build_stored_net

    net = build_stored_net(model, ctx)
    # static_shape stays False: the batches differ in size, and with static_shape MXNet would plan
    # its memory again for each size.
    net.hybridize(static_alloc=True)

    def forward(images: np.ndarray) -> np.ndarray:
        pixels = mx.nd.array(np.ascontiguousarray(images), ctx=ctx, dtype="uint8")
        values = pixels.astype("float32").transpose((0, 3, 1, 2))  # (B, 3, H, W)
        with mx.autograd.pause(train_mode=False):
            # Sync: the host waits for the embeddings.
            return net((values - normalization.MEAN) / normalization.STD).asnumpy()

    return forward


def _onnx_forward(model: StoredModel) -> Forward:
    """Return a function that computes the network in ONNX Runtime on the CPU."""
    import onnxruntime

    options = session_options(len(os.sched_getaffinity(0)), os.getloadavg()[0])
    session = onnxruntime.InferenceSession(
        onnx_of(model).SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    (name,) = (value.name for value in session.get_inputs())

    def forward(images: np.ndarray) -> np.ndarray:
        pixels = np.ascontiguousarray(images.transpose(0, 3, 1, 2), np.float32)  # (B, 3, H, W)
        return session.run(None, {name: pixels})[0]

    return forward


def session_options(cores: int, load: float) -> onnxruntime.SessionOptions:
    """Return the options of ONNX Runtime for a number of cores and the load average of the host."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = cores
    options.log_severity_level = 3  # log only errors
    if load > BUSY_LOAD * cores:
        # Waiting threads would spin on cores that other threads need to compute.  On 2 cores with a
        # load average of 10, spinning made MobileFaceNet 2.3 times as slow for one image.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return options


def onnx_of(model: StoredModel) -> onnx.ModelProto:
    """Return the ONNX model of a stored model; its input is pixels from 0 to 255."""
    from interchange.net_graph import model_graph
    from interchange.onnx_export import OnnxSettings, build_onnx

    settings = OnnxSettings(model.image_size, scaling="inside")
    size = int(model.net["embedding_size"])
    return build_onnx(model_graph(model), settings, embedding_size=size)
