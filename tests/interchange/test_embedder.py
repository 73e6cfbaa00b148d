# SPDX-License-Identifier: Apache-2.0
"""Embeddings of images: values, checks of the input, choice of the runtime."""

from __future__ import annotations

import importlib.util
from dataclasses import replace

import mxnet as mx
import numpy as np
import pytest

import normalization
from interchange import InterchangeError, load_embedder
from interchange.embedder import session_options
from interchange.open_model import open_model
from interchange.stored_net import build_stored_net
from tests.runs import TINY, save_run

IMAGES = np.random.default_rng(0).integers(0, 256, (5, 64, 48, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Return a run folder whose network takes images of 64x48 pixels."""
    results = {"a": {"pairs": 30, "best_threshold": 1.0}, "b": {"pairs": 10, "best_threshold": 1.8}}
    return save_run(tmp_path_factory.mktemp("run"), image_size=(64, 48), verification=results)


@pytest.fixture(scope="module")
def expected(run) -> np.ndarray:
    """Return the embeddings that the Gluon network computes, not normalised."""
    values = (IMAGES.transpose(0, 3, 1, 2) - normalization.MEAN) / normalization.STD
    return build_stored_net(open_model(run))(mx.nd.array(values)).asnumpy()


@pytest.mark.parametrize("runtime", ["auto", "mxnet"])
def test_embeddings_are_those_of_the_network(run, expected, runtime):
    embed = load_embedder(run, device="cpu", runtime=runtime, batch_size=2)
    assert embed.runtime == ("onnxruntime" if runtime == "auto" else "mxnet")
    assert embed.notices == ()
    found = embed(IMAGES)
    assert found.dtype == np.float32 and found.shape == (5, 8)
    unit = expected / np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(found, unit, atol=1e-5)
    np.testing.assert_allclose(embed.raw_embeddings(IMAGES), expected, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(embed(IMAGES[3:4]), unit[3:4], atol=1e-5)
    assert embed(IMAGES[:0]).shape == (0, 8)
    # A view with other strides has the same pixels.
    np.testing.assert_allclose(embed(IMAGES[::-1]), unit[::-1], atol=1e-5)


@pytest.mark.parametrize("runtime", ["auto", "mxnet"])
def test_flip_adds_the_mirror_image(run, runtime):
    plain = load_embedder(run, device="cpu", runtime=runtime)
    total = plain.raw_embeddings(IMAGES) + plain.raw_embeddings(IMAGES[:, :, ::-1])
    found = load_embedder(run, device="cpu", runtime=runtime, flip=True)(IMAGES)
    unit = total / np.linalg.norm(total, axis=1, keepdims=True)
    np.testing.assert_allclose(found, unit, atol=1e-5)


def test_attributes_describe_the_model(run):
    embed = load_embedder(run, device="cpu")
    assert embed.image_size == (64, 48) and embed.embedding_size == TINY["embedding_size"]
    assert embed.source == str(run / "checkpoints" / "step-00000007")
    assert embed.threshold == pytest.approx(1 - (30 * 1.0 + 10 * 1.8) / 40 / 2)


def test_images_of_another_type_or_shape_are_refused(run):
    embed = load_embedder(run, device="cpu", runtime="mxnet")
    for images, got in [
        (IMAGES.astype(np.float32), r"float32 \(5, 64, 48, 3\)"),
        (IMAGES[0], r"uint8 \(64, 48, 3\)"),
        (IMAGES.transpose(0, 3, 1, 2), r"uint8 \(5, 3, 64, 48\)"),
        (IMAGES[:, :32], r"uint8 \(5, 32, 48, 3\)"),
        (IMAGES.tolist(), "list"),
        (np.uint8(3), "uint8"),
    ]:
        message = rf"^images: must be RGB pixels, a NumPy array uint8 \(N, 64, 48, 3\), got {got};"
        with pytest.raises(InterchangeError, match=message):
            embed(images)


def test_bad_arguments_are_refused(run, monkeypatch):
    for argument, problem in [
        ({"batch_size": 0}, "batch_size: must be at least 1, got 0; "),
        ({"device": "tpu"}, "device: must be one of auto, cpu, gpu, got 'tpu'; "),
        ({"runtime": "torch"}, "runtime: must be one of auto, mxnet, got 'torch'; "),
    ]:
        with pytest.raises(InterchangeError, match=f"^{problem}"):
            load_embedder(run, **argument)
    monkeypatch.setattr("mxnet.context.num_gpus", lambda: 0)
    with pytest.raises(InterchangeError, match="^device: MXNet finds no usable GPU, got 'gpu'; "):
        load_embedder(run, device="gpu")


def test_an_embedding_without_direction_is_refused(run):
    model = open_model(run)
    for value, got in [(0.0, "L2 norm 0"), (np.nan, "L2 norm nan")]:
        weights = {name: array.copy() for name, array in model.parameters.items()}
        for name in ("embedding.norm.beta", "embedding.norm.gamma"):
            weights[name][:] = value
        embed = load_embedder(replace(model, parameters=weights), device="cpu", runtime="mxnet")
        with pytest.raises(InterchangeError, match=f"image 0 cannot be normalised, got {got}"):
            embed(IMAGES)


def test_mxnet_computes_if_onnxruntime_cannot(run, expected, monkeypatch):
    find = importlib.util.find_spec
    hidden = lambda name: None if name == "onnxruntime" else find(name)  # noqa: E731
    monkeypatch.setattr("interchange.embedder.find_spec", hidden)
    embed = load_embedder(run, device="cpu")
    assert embed.runtime == "mxnet"
    assert embed.notices == ("MXNet computes the embeddings, because onnxruntime is not installed",)
    monkeypatch.undo()

    def refuse(model):
        raise InterchangeError("layer: has no translation")

    monkeypatch.setattr("interchange.embedder.onnx_of", refuse)
    embed = load_embedder(run, device="cpu")
    assert embed.runtime == "mxnet" and "layer: has no translation" in embed.notices[0]
    unit = expected / np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(embed(IMAGES), unit, atol=1e-5)


def test_threads_are_bounded_and_do_not_spin_on_a_busy_host():
    key = "session.intra_op.allow_spinning"
    busy, idle = session_options(2, 10.0), session_options(2, 2.0)
    assert (busy.intra_op_num_threads, idle.intra_op_num_threads) == (2, 2)
    assert busy.get_session_config_entry(key) == "0"
    with pytest.raises(RuntimeError):  # the default: threads spin
        idle.get_session_config_entry(key)


def test_a_gpu_is_used_if_mxnet_finds_one(run, monkeypatch):
    monkeypatch.setattr("mxnet.context.num_gpus", lambda: 1)
    monkeypatch.setattr("mxnet.gpu", lambda index: mx.cpu(index + 1))  # a second CPU plays the GPU
    embed = load_embedder(run)
    assert embed.runtime == "mxnet"
    reference = load_embedder(run, device="cpu", runtime="mxnet")
    np.testing.assert_allclose(embed(IMAGES), reference(IMAGES), atol=1e-5)
