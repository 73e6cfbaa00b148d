"""Stored models with small images and random weights."""

from __future__ import annotations

import mxnet as mx
import numpy as np

from interchange.model import StoredModel
from interchange.stored_net import build_stored_net
from nets import build_net

SIZE = (32, 32)


def random_model(name: str = "mobilefacenet", size: tuple[int, int] = SIZE, **net) -> StoredModel:
    net = {"name": name, "embedding_size": 8, **net}
    random = np.random.default_rng(3)
    values = {}
    for own, parameter in build_net(image_size=size, **net)._collect_params_with_prefix().items():
        low, high = (0.5, 1.5) if own.endswith(("gamma", "var", "alpha")) else (-0.3, 0.3)
        values[own] = random.uniform(low, high, parameter.shape).astype(np.float32)
    return StoredModel("small", "checkpoint", net, size, values)


def images(size: tuple[int, int] = SIZE, count: int = 3) -> np.ndarray:
    """Return uint8 pixels (N, H, W, 3)."""
    return np.random.default_rng(5).integers(0, 256, (count, *size, 3), dtype=np.uint8)


def forward(model: StoredModel, values: np.ndarray) -> np.ndarray:
    """Return the normalised embeddings of inputs (N, H, W, 3) that the network takes unchanged."""
    net = build_stored_net(model)
    found = net(mx.nd.array(values.transpose(0, 3, 1, 2).astype(np.float32))).asnumpy()
    return found / np.linalg.norm(found, axis=1, keepdims=True)


def embed(model: StoredModel, pixels: np.ndarray) -> np.ndarray:
    return forward(model, (pixels - 127.5) / 128)
