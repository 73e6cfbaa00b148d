# SPDX-License-Identifier: Apache-2.0
"""Embeddings of images and mirror images, with one rank and with several."""

from __future__ import annotations

import subprocess
import sys
from functools import partial

import cv2
import mxnet as mx
import numpy as np
import pytest

import evaluation
from evaluation import embedding, evaluate
from evaluation import pairs as pairs_module
from evaluation.pairs import Pairs, PairsError

SIZE = (6, 4)
MEAN, STD = 127.5, 128.0
embed = partial(embedding.embed, mean=MEAN, std=STD)
evaluate_sets = partial(evaluate.evaluate_sets, mean=MEAN, std=STD, batch_size=4, image_size=SIZE)


def make_images(count: int, seed: int = 0) -> tuple[list[bytes], np.ndarray]:
    """Return losslessly encoded images and their RGB pixels (count, H, W, 3)."""
    pixels = np.random.default_rng(seed).integers(0, 256, (count, *SIZE, 3), dtype=np.uint8)
    return [cv2.imencode(".png", x[..., ::-1])[1].tobytes() for x in pixels], pixels


def make_net(units: int = 5):
    """Return a net whose output in training differs: it has dropout."""
    net = mx.gluon.nn.HybridSequential()
    net.add(mx.gluon.nn.Dense(9, activation="tanh"), mx.gluon.nn.Dropout(0.5))
    net.add(mx.gluon.nn.Dense(units))
    mx.random.seed(3)
    net.initialize(mx.init.Normal(0.1))
    net(mx.nd.zeros((1, 3, *SIZE)))
    return net


class Watched:
    """Net that records the shapes of its inputs and the mode."""

    def __init__(self, net) -> None:
        self.net = net
        self.shapes: list[tuple[int, ...]] = []
        self.training: list[bool] = []

    def __call__(self, batch):
        self.shapes.append(batch.shape)
        self.training.append(mx.autograd.is_training() or mx.autograd.is_recording())
        return self.net(batch)


def expected(net, pixels):
    x = ((pixels.astype(np.float32) - 127.5) / 128).transpose(0, 3, 1, 2)
    one = net(mx.nd.array(x)).asnumpy()
    two = net(mx.nd.array(x[..., ::-1].copy())).asnumpy()
    norms = (np.linalg.norm(one, axis=1) + np.linalg.norm(two, axis=1)) / 2
    return one + two, norms


@pytest.mark.parametrize("count", [1, 4, 7, 8, 9])
def test_sum_over_image_and_mirror(count):
    net, (images, pixels) = make_net(), make_images(count)
    sums, norms = embed(net, images, SIZE, batch_size=4)
    assert sums.dtype == norms.dtype == np.float32
    want_sums, want_norms = expected(net, pixels)
    np.testing.assert_allclose(sums, want_sums, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(norms, want_norms, rtol=1e-5, atol=1e-6)


def test_pixels_are_normalised_by_mean_and_std():
    net, (images, pixels) = make_net(), make_images(3)
    sums, _ = embed(net, images, SIZE, mean=100.0, std=50.0)
    x = ((pixels.astype(np.float32) - 100) / 50).transpose(0, 3, 1, 2)
    want = sum(net(mx.nd.array(image.copy())).asnumpy() for image in (x, x[..., ::-1]))
    np.testing.assert_allclose(sums, want, rtol=1e-5, atol=1e-6)


def test_a_static_graph_has_the_same_results_and_one_input_shape():
    """The batches in flight must not share their output."""
    images, _ = make_images(23)
    want, _ = embed(make_net(), images, SIZE, batch_size=4)
    net = make_net()
    net.hybridize(static_alloc=True, static_shape=True)
    watched = Watched(net)
    sums, _ = embed(watched, images, SIZE, batch_size=4)
    np.testing.assert_allclose(sums, want, rtol=1e-5, atol=1e-6)
    assert set(watched.shapes) == {(4, 3, *SIZE)}


def test_the_net_is_in_inference_mode_while_autograd_records():
    net, (images, _) = Watched(make_net()), make_images(3)
    want, _ = embed(net, images, SIZE, batch_size=2)
    with mx.autograd.record():
        sums, _ = embed(net, images, SIZE, batch_size=2)
    np.testing.assert_array_equal(sums, want)
    assert not any(net.training)


def test_pixels_and_encoded_images_mix():
    net, (images, pixels) = make_net(), make_images(3)
    mixed = [images[0], np.frombuffer(images[1], np.uint8), pixels[2]]
    np.testing.assert_array_equal(embed(net, mixed, SIZE)[0], embed(net, images, SIZE)[0])


@pytest.mark.parametrize("count, size", [(8, 2), (7, 2), (10, 3), (2, 3), (1, 4)])
def test_ranks_embed_equal_interleaved_parts(count, size):
    net, (images, _) = make_net(), make_images(count)
    whole, _ = embed(net, images, SIZE, batch_size=2)
    parts = [embed(net, images, SIZE, batch_size=2, part=(rank, size))[0] for rank in range(size)]
    assert {len(part) for part in parts} == {-(-count // size)}
    for i in range(count):
        np.testing.assert_allclose(parts[i % size][i // size], whole[i], rtol=1e-5, atol=1e-6)


def test_chosen_images_are_embedded_and_named_by_their_index():
    net, (images, _) = make_net(), make_images(9)
    every, norms = embed(net, images, SIZE, batch_size=2)
    calls = []
    found = embed(
        net, images, SIZE, batch_size=2, chosen=[1, 4, 8], progress=lambda *call: calls.append(call)
    )
    np.testing.assert_array_equal(found[0], every[[1, 4, 8]])
    np.testing.assert_array_equal(found[1], norms[[1, 4, 8]])
    assert calls == [(2, 3), (3, 3)]
    images[8] = b"broken"
    with pytest.raises(PairsError, match="lfw.bin: image 0 of pair 4: does not decode"):
        embed(net, images, SIZE, where="lfw.bin", chosen=[1, 4, 8])


def test_a_bad_image_is_named():
    net, (images, _) = make_net(), make_images(6)
    images[3] = b"broken"
    with pytest.raises(PairsError, match="lfw.bin: image 1 of pair 1: does not decode"):
        embed(net, images, SIZE, where="lfw.bin")
    sums, _ = embed(net, images, SIZE, batch_size=2, strict=False)
    assert np.isnan(sums).all(axis=1).tolist() == [False] * 3 + [True] + [False] * 2


def test_a_truncated_image_is_named_by_one_rank_and_by_several():
    net, sets = make_net(), make_sets(6)
    torn = sets.images[7]

    def cut_off(image):
        return bytes(image) == torn

    words = "toy.bin: image 1 of pair 3: the image is cut off, got an end-of-image marker"
    with pytest.raises(PairsError, match=words):
        embed(net, sets.images, SIZE, where=sets.path, cut_off=cut_off)
    with pytest.raises(PairsError, match=words):
        evaluate_sets(net, {"toy": sets}, cut_off=cut_off)
    results = evaluate_on_ranks(net, {"toy": sets}, 2, cut_off=cut_off)
    assert len(set(results)) == 1 and results[0][0] is PairsError and words in results[0][1]


def test_invalid_arguments_are_refused():
    net, (images, _) = make_net(), make_images(2)
    with pytest.raises(PairsError, match="got 0 images"):
        embed(net, [], SIZE)
    with pytest.raises(ValueError, match="batch_size"):
        embed(net, images, SIZE, batch_size=0)
    with pytest.raises(ValueError, match="rank 2, size 2"):
        embed(net, images, SIZE, part=(2, 2))


# -- sets


def make_sets(pairs: int) -> Pairs:
    images, _ = make_images(2 * pairs, seed=pairs)
    return Pairs(images, np.arange(pairs) % 3 == 0, path="toy.bin")


class Waiting(Exception):
    """A rank has reached the exchange."""


def evaluate_on_ranks(net, sets, size, **options):
    """Run `size` ranks in turn: first up to the exchange, then with its result."""
    sent = {}

    def send(rank):
        def gather(rows):
            sent[rank] = rows
            raise Waiting

        return gather

    for rank in range(size):
        with pytest.raises(Waiting):
            evaluate_sets(net, sets, rank=rank, size=size, gather=send(rank), **options)
    together = np.concatenate([sent[rank] for rank in range(size)])
    results = []
    for rank in range(size):
        try:
            results.append(
                evaluate_sets(net, sets, rank=rank, size=size, gather=lambda _: together, **options)
            )
        except ValueError as error:
            results.append((type(error), str(error)))
    return results


@pytest.mark.parametrize("pairs, size", [(12, 2), (11, 2), (13, 4), (11, 3), (10, 21), (11, 5)])
def test_several_ranks_give_the_results_of_one(pairs, size):
    net, sets = make_net(), {"toy": make_sets(pairs)}
    alone = evaluate_sets(net, sets)
    for result in evaluate_on_ranks(net, sets, size):
        assert set(result) == {"toy"}
        assert result["toy"]["accuracy"] == alone["toy"]["accuracy"]
        assert result["toy"]["best_threshold"] == alone["toy"]["best_threshold"]
        assert result["toy"]["xnorm"] == pytest.approx(alone["toy"]["xnorm"], rel=1e-6)
        assert result["toy"]["pairs"] == pairs


@pytest.mark.parametrize("size", [1, 2, 3])
def test_each_distinct_image_is_embedded_once_with_the_same_results(size, monkeypatch):
    """The results are those of the protocol without `find_distinct`, to the last bit."""
    net, pairs = Watched(make_net()), make_sets(10)
    images = [pairs.images[min(i, 3 + i % 5)] for i in range(20)]  # 8 distinct images
    sets = {"toy": Pairs(images, pairs.issame, path="toy.bin")}

    def run():
        net.shapes.clear()
        if size == 1:
            return [evaluate_sets(net, sets, batch_size=1)], len(net.shapes)
        return evaluate_on_ranks(net, sets, size, batch_size=1), len(net.shapes)

    found, calls = run()
    assert calls == 2 * 8 if size == 1 else calls >= 2 * 8
    every = list(range(20)), np.arange(20)
    monkeypatch.setattr(evaluate, "find_distinct", lambda images: every)
    expected_results, all_calls = run()
    assert found == expected_results and calls < all_calls


def test_a_bad_image_is_named_at_its_first_occurrence():
    pairs = make_sets(10)
    images = [*pairs.images[:6], pairs.images[0], b"broken", pairs.images[0], b"broken"]
    sets = {"toy": Pairs([*images, *images], pairs.issame, path="toy.bin")}
    results = evaluate_on_ranks(make_net(), sets, 2)
    assert set(results) == {results[0]}
    assert results[0][1].startswith("toy.bin: image 1 of pair 3: does not decode")


def test_progress_names_the_set_and_counts_distinct_images():
    pairs, calls = make_sets(10), []
    images = [pairs.images[i % 6] for i in range(20)]
    sets = {"toy": Pairs(images, pairs.issame), "other": pairs}
    evaluate_sets(make_net(), sets, batch_size=4, progress=lambda *call: calls.append(call))
    assert calls[:2] == [("toy", 4, 6), ("toy", 6, 6)]
    assert calls[2:] == [("other", done, 20) for done in (4, 8, 12, 16, 20)]


def test_xnorm_is_the_mean_norm_of_images_and_mirror_images():
    net, pairs = make_net(), make_sets(10)
    _, norms = embed(net, pairs.images, SIZE)
    result = evaluate_sets(net, {"toy": pairs})
    assert result["toy"]["xnorm"] == pytest.approx(norms.mean(), rel=1e-6)


def test_a_bad_image_ends_all_ranks_with_the_same_message():
    net, pairs = make_net(), make_sets(11)
    pairs.images[5] = b"broken"
    results = evaluate_on_ranks(net, {"toy": pairs}, 3)
    assert len(set(results)) == 1
    kind, message = results[0]
    assert kind is PairsError
    assert message.startswith("toy.bin: image 1 of pair 2: does not decode")


def test_a_diverged_net_ends_all_ranks_with_the_same_message():
    net = make_net()
    net[2].bias.set_data(mx.nd.array([np.nan] * 5))
    results = evaluate_on_ranks(net, {"toy": make_sets(11)}, 2)
    assert len(set(results)) == 1
    assert results[0][0] is ValueError
    assert results[0][1].startswith("toy: verify: the embedding of image 0 of pair 0")


def test_several_sets_keep_their_names_and_order():
    sets = {"b": make_sets(10), "a": make_sets(12)}
    result = evaluate_sets(make_net(), sets)
    assert [(name, metrics["pairs"]) for name, metrics in result.items()] == [("b", 10), ("a", 12)]


def test_several_ranks_need_gather():
    with pytest.raises(ValueError, match="2 ranks need a function .*, got gather=None"):
        evaluate_sets(make_net(), {}, rank=0, size=2)


def test_only_evaluate_sets_imports_mxnet():
    script = (
        "import sys, evaluation\n"
        "from evaluation import PairsError, find_sets, read_pairs, verify\n"
        "assert 'mxnet' not in sys.modules\n"
        "from evaluation import evaluate_sets\n"
        "assert 'mxnet' in sys.modules\n"
        "assert not hasattr(evaluation, 'nothing')\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


def test_the_package_has_the_functions_of_its_modules():
    assert evaluation.read_pairs is pairs_module.read_pairs
    assert evaluation.evaluate_sets is evaluate.evaluate_sets
    with pytest.raises(AttributeError, match="module 'evaluation' has no attribute 'read_pair'"):
        _ = evaluation.read_pair
