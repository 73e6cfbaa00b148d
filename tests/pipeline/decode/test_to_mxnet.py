# SPDX-License-Identifier: Apache-2.0
"""MXNet arrays of images and labels: values, devices and memory."""

from __future__ import annotations

import gc

import mxnet as mx
import numpy as np
import pytest

import ops
from pipeline.decode import dali
from pipeline.decode.dali import MEAN, STD, DecodeGraph
from pipeline.decode.to_mxnet import (
    Normalizer,
    copy_to_ndarray,
    labels_to_ndarray,
    pooled_array,
)
from pipeline.sampling.augmentation import NO_AUGMENTATION, Augmentation, choose_params

DEVICES = [mx.cpu(), mx.cpu(1), mx.Context("cpu_shared", 0)]


@pytest.fixture(scope="module")
def kernels():
    ops.use("native")
    found = ops.loader_kernels()
    ops.use("plain")
    return found


@pytest.mark.parametrize("ctx", DEVICES, ids=str)
def test_labels_are_copied_to_the_device(ctx):
    labels = np.array([3, 1 << 24, 0], np.int32)
    array = labels_to_ndarray(labels, ctx)
    labels[:] = 7
    assert array.context == ctx and array.dtype == np.float32
    assert array.asnumpy().tolist() == [3, 1 << 24, 0]


@pytest.mark.parametrize("pooled", [True, False])
@pytest.mark.parametrize("ctx", DEVICES, ids=str)
def test_a_tensor_of_dali_is_copied(kernels, ctx, pooled):
    graph = DecodeGraph(2, "cpu", 1, 1, None, NO_AUGMENTATION, source="pixels")
    pixels = np.random.default_rng(0).integers(0, 256, (2, 8, 6, 3), dtype=np.uint8)
    params = choose_params(Augmentation(), np.arange(2), 1, 0, (8, 6))
    graph.feed(pixels, params)
    tensor = graph.take().as_tensor()
    array = copy_to_ndarray(tensor, ctx, kernels if pooled else None)
    assert (array.asnumpy() == np.array(tensor)).all()
    expected = array.asnumpy().copy()
    graph.release()
    graph.feed(255 - pixels, params)  # overwrites the tensor's memory
    graph.take()
    assert array.context == ctx and array.dtype == np.float32 and array.shape == (2, 3, 8, 6)
    assert (array.asnumpy() == expected).all() and expected.std() > 0.1


def test_only_gpu_tensors_have_a_cuda_array_interface():
    name = "__cuda_array_interface__"  # copy_to_ndarray checks it
    assert hasattr(dali.backend.TensorGPU, name) and not hasattr(dali.backend.TensorCPU, name)


@pytest.mark.parametrize("device_id", [0, 1])
def test_pixels_are_normalised_and_mirrored(kernels, device_id):
    pixels = np.random.default_rng(0).integers(0, 256, (9, 8, 6, 3), dtype=np.uint8)
    rows, mirror = np.array([4, 0, 4, 8]), np.array([True, False, False, True])
    normalizer = Normalizer(kernels, (8, 6), mx.cpu(device_id), threads=2)
    array = normalizer(pixels.ctypes.data, rows, mirror)
    chosen = pixels[rows].astype(np.float32)
    chosen[mirror] = chosen[mirror, :, ::-1]
    assert array.context == mx.cpu(device_id)
    assert np.abs(array.asnumpy() - ((chosen - MEAN) / STD).transpose(0, 3, 1, 2)).max() < 1e-6


def test_memory_returns_to_the_pool_after_the_last_reference(kernels):
    first, address = pooled_array(kernels, (2, 3, 112, 112), mx.cpu())
    _, other = pooled_array(kernels, (2, 3, 112, 112), mx.cpu())
    assert first.shape == (2, 3, 112, 112) and address != other
    view = first[0:1]
    del first
    gc.collect()
    assert pooled_array(kernels, (2, 3, 112, 112), mx.cpu())[1] != address
    del view
    gc.collect()
    mx.nd.waitall()
    held = [pooled_array(kernels, (2, 3, 112, 112), mx.cpu()) for _ in range(3)]
    assert address in [place for _, place in held]
