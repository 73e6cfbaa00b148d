# SPDX-License-Identifier: Apache-2.0
"""Compute unit-length embeddings from pixels, the work that benchmarks/embedding_rate.py times."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.harness import baselines, inputs
from benchmarks.harness.worker import Work, serve
from launch.ranks.threads import share_cores

SIDE_PIXELS = 112
Embed = Callable[[np.ndarray], np.ndarray]


def build(kind: str, net: str, options: dict[str, Any], batch: int) -> Work:
    """Return the `Work` that embeds a batch of random images.

    Parameters
    ----------
    kind
        "ours": the function of `interchange.load_embedder`.  "ours mxnet": the same network in
        MXNet.  "onnxruntime": the exported ONNX file in ONNX Runtime with its default settings.
        "gluonfr": GluonFR's MobileFaceNet.
    net, options
        Name of the network in nets.NETS, and its keyword arguments.
    batch
        Images per call.
    """
    shape = (batch, SIDE_PIXELS, SIDE_PIXELS, 3)
    images = np.random.default_rng(3).integers(0, 256, shape, dtype=np.uint8)
    if kind == "gluonfr":
        embed, parameters = gluonfr_embed(net)
    else:
        model = random_model(net, options)
        embed, parameters = our_embed(kind, model), sum(v.size for v in model.parameters.values())

    def step(mark: Callable[[], None]) -> float:
        return float(np.abs(embed(images)).sum())

    return Work(step, 4 * parameters, parameters, _versions(kind))


def random_model(name: str, options: dict[str, Any]) -> Any:
    """Return a network as a `StoredModel`, with random weights that are equal in every process."""
    import mxnet as mx

    from interchange import StoredModel
    from nets import build_net

    mx.random.seed(0)
    net = build_net(name, (SIDE_PIXELS, SIDE_PIXELS), **options)
    net.initialize()
    parameters = {n: p.data().asnumpy() for n, p in net._collect_params_with_prefix().items()}
    return StoredModel(
        source=name,
        kind="checkpoint",
        net={"name": name, **options},
        image_size=(SIDE_PIXELS, SIDE_PIXELS),
        parameters=parameters,
    )


def our_embed(kind: str, model: Any) -> Embed:
    """Return a function from pixels (B, H, W, 3) uint8 to embeddings (B, E) of unit length."""
    from interchange import load_embedder

    if kind == "ours":
        return load_embedder(model, device="cpu")
    if kind == "ours mxnet":
        return load_embedder(model, device="cpu", runtime="mxnet")
    import onnxruntime

    from interchange.embedder import onnx_of

    session = onnxruntime.InferenceSession(
        onnx_of(model).SerializeToString(), providers=["CPUExecutionProvider"]
    )
    (source,) = (value.name for value in session.get_inputs())

    def embed(images: np.ndarray) -> np.ndarray:
        pixels = np.ascontiguousarray(images.transpose(0, 3, 1, 2), np.float32)
        found = session.run(None, {source: pixels})[0]
        return found / np.linalg.norm(found, axis=1, keepdims=True)

    return embed


def gluonfr_embed(net: str) -> tuple[Embed, int]:
    """Return an embedding function of GluonFR's MobileFaceNet, and the number of parameters.

    The function has the inputs and outputs of the function that `our_embed` returns.
    """
    baselines.use_folder()
    import mxnet as mx
    from gluonfr.model_zoo import get_model

    network = get_model(net, classes=1, need_cls_layer=False)
    network.initialize(init=mx.init.MSRAPrelu())
    network.hybridize(static_alloc=True, static_shape=True)

    def embed(images: np.ndarray) -> np.ndarray:
        pixels = mx.nd.array(images, dtype="uint8").astype("float32").transpose((0, 3, 1, 2))
        found = network((pixels - inputs.MEAN) / inputs.STD)
        return mx.nd.L2Normalization(found).asnumpy()

    embed(np.zeros((1, SIDE_PIXELS, SIDE_PIXELS, 3), np.uint8))  # deferred initialisation
    return embed, sum(p.data().size for p in network.collect_params().values())


def warm() -> None:
    """Set the number of threads, load MXNet, and start the threads."""
    share_cores()
    import mxnet as mx

    matrix = mx.nd.ones((512, 512))
    mx.nd.dot(matrix, matrix).wait_to_read()


def _versions(kind: str) -> dict[str, str]:
    import mxnet as mx

    found = {"mxnet": mx.__version__, "numpy": np.__version__}
    if kind in ("ours", "onnxruntime"):
        import onnxruntime

        found["onnxruntime"] = onnxruntime.__version__
    return found


if __name__ == "__main__":
    serve(build, warm)
