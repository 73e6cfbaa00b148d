# SPDX-License-Identifier: Apache-2.0
"""Test for races in the transfer of batches from DALI to MXNet, while a net trains.

A batch differs from its source if MXNet reads the batch before DALI has finished it, or if DALI
reuses the memory while MXNet still reads.  The normalisation, (x - 127.5) / 128, is exact in
float32, so any difference is an error.
"""

from __future__ import annotations

from collections import deque

import mxnet as mx
import numpy as np

from heads import build_head
from nets import build_net
from pipeline.decode.dali import MEAN, STD, DecodeGraph
from pipeline.decode.to_mxnet import copy_to_ndarray
from pipeline.sampling.augmentation import Augmentation, AugmentParams, choose_params
from training.step import build_optimizer, collect_parameters, train_step

PREFETCH_BATCHES = 2  # In the loader, too, two batches are in flight in DALI's graph.
HELD_BATCHES = 3
PEOPLE, EMBEDDING_SIZE = 10, 16
MIRROR = Augmentation()


def wrong_batches(
    device: mx.Context, batches: int, batch_size: int, size: int, width: float
) -> dict[str, int]:
    """Train on random batches, and count the batches with wrong pixels.

    The result counts all batches ("batches"), those that are wrong right after their transfer from
    DALI ("wrong"), and those that are wrong HELD_BATCHES training steps later ("wrong_later").

    Parameters
    ----------
    device
        Device of the batches and of the net.
    batches
        Number of batches.
    batch_size
        Number of images per batch.
    size
        Height and width of an image in pixels.
    width
        Width factor of the MobileFaceNet.
    """
    gpu = device.device_id if device.device_type == "gpu" else None
    graph = DecodeGraph(batch_size, "cpu", 1, PREFETCH_BATCHES, gpu, MIRROR, source="pixels")
    net = build_net("mobilefacenet", (size, size), width=width, embedding_size=EMBEDDING_SIZE)
    head = build_head("arcface", PEOPLE, EMBEDDING_SIZE, m2=0.2, scale=16.0)
    for block in (net, head):
        block.initialize(ctx=device)
        block.hybridize(static_alloc=True, static_shape=True)
    parameters = collect_parameters(net, head)
    optimizer = build_optimizer(parameters, "sgd", 0.01, 0.9, 5e-4)
    trainer = mx.gluon.Trainer(parameters, optimizer, kvstore=None)
    label = mx.nd.array(np.arange(batch_size) % PEOPLE, ctx=device)
    margin = mx.nd.ones((1,), ctx=device)
    sent: deque[tuple[np.ndarray, AugmentParams]] = deque()
    held: deque[tuple[mx.nd.NDArray, mx.nd.NDArray]] = deque()
    at_transfer, later = [], []
    for number in range(batches + PREFETCH_BATCHES - 1):
        sent.append(_batch(number, batch_size, size))
        graph.feed(*sent[-1])
        if len(sent) < PREFETCH_BATCHES:
            continue
        image = copy_to_ndarray(graph.take().as_tensor(), device)
        graph.release()
        expected = mx.nd.array(_expected(*sent.popleft()), ctx=device)
        # The host reads the differences only at the end, because a wait here would hide a race.
        at_transfer.append(_difference(image, expected))
        held.append((image, expected))
        train_step(net, head, trainer, image, label, margin)
        if len(held) > HELD_BATCHES:
            later.append(_difference(*held.popleft()))
    later += [_difference(*pair) for pair in held]
    return {
        "batches": len(at_transfer),
        "wrong": sum(float(d.asscalar()) != 0 for d in at_transfer),
        "wrong_later": sum(float(d.asscalar()) != 0 for d in later),
    }


def _batch(number: int, batch_size: int, size: int) -> tuple[np.ndarray, AugmentParams]:
    """Return a batch of random pixels, (batch_size, size, size, 3) uint8, and its mirror flags."""
    random = np.random.default_rng(number)
    pixels = random.integers(0, 256, (batch_size, size, size, 3), np.uint8)
    ids = np.arange(batch_size, dtype=np.int64) + number * batch_size
    return pixels, choose_params(MIRROR, ids, 0, 0, (size, size))


def _expected(pixels: np.ndarray, params: AugmentParams) -> np.ndarray:
    """Return the batch that DALI must deliver: the pixels, mirrored and normalised with NumPy."""
    mirrored = np.where(params.mirror[:, None, None, None], pixels[:, :, ::-1], pixels)
    planes = mirrored.transpose(0, 3, 1, 2).astype(np.float32)
    return np.ascontiguousarray((planes - np.float32(MEAN)) / np.float32(STD))


def _difference(image: mx.nd.NDArray, expected: mx.nd.NDArray) -> mx.nd.NDArray:
    return mx.nd.abs(image - expected).max()
