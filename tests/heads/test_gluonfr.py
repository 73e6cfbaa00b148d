# SPDX-License-Identifier: Apache-2.0
"""Comparison with GluonFR 1.0.2: equal values where its loss is correct, and its defects.

GluonFR's losses accept class scores, ours accept embeddings: its NormDense computes the scores
here, as in its examples.  The baselines of the benchmarks contain it
(benchmarks/harness/baselines.py); otherwise these tests install it in a separate folder, and are
skipped without a network.
"""

from __future__ import annotations

import importlib.util
import math
from types import SimpleNamespace

import mxnet as mx
import numpy as np
import pytest

from benchmarks.harness import baselines
from heads import build_head
from tests.heads import oracles

CLASSES, SIZE, BATCH = 7, 5, 7
DISTINCT = np.array([6, 0, 3, 1, 5, 2, 4])
REPEATED = np.array([0, 0, 0, 6, 6, 3, 3])


@pytest.fixture(scope="module")
def gluonfr(tmp_path_factory):
    """Return GluonFR's modules of losses and blocks, which import no other part of it."""
    folder = baselines.FOLDER
    if not (folder / ".stamp").is_file():
        folder = tmp_path_factory.mktemp("gluonfr")
        text = baselines.LOCK.read_text()
        lock = folder / "gluonfr.txt"
        lock.write_text(text[text.index("gluonfr==") :].split("    #")[0])
        folder = folder / "baselines"
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("PIP_RETRIES", "0")
            patch.setenv("PIP_DEFAULT_TIMEOUT", "10")
            trouble = baselines.install(folder, lock)
        if trouble:
            pytest.skip(
                f"no GluonFR (python benchmarks/harness/baselines.py installs it): {trouble}"
            )
    found = {}
    for name in ("loss", "nn/basic_blocks"):
        spec = importlib.util.spec_from_file_location(
            f"gluonfr_{name[-6:]}", folder / "gluonfr" / f"{name}.py"
        )
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)  # by path: the rest of the folder stays out of sys.path
        found |= vars(module)
    return SimpleNamespace(**found)


pytestmark = pytest.mark.usefixtures("operators")


@pytest.fixture
def embedding():
    """Return embeddings of length 1 to 2, 10 to 130 degrees from the centres of DISTINCT."""
    return np.random.RandomState(0).randn(BATCH, SIZE).astype("f4") / 1.5


@pytest.fixture
def weight():
    return np.random.RandomState(1).randn(CLASSES, SIZE).astype("f4") * 0.6


def ours(name, weight, embedding, label, *fraction, states=(), **settings):
    """Return our loss per image, and the gradient of its sum."""
    head = build_head(name, CLASSES, SIZE, **settings)
    head.initialize()
    found = head._collect_params_with_prefix()
    for key, value in (("weight", weight), *states):
        if value is not None:
            found[key].set_data(mx.nd.array(value))
    x = mx.nd.array(embedding)
    x.attach_grad()
    with mx.autograd.record():
        loss, _ = head(x, mx.nd.array(label), *fraction)
    loss.backward()
    return loss.asnumpy(), x.grad.asnumpy()


def scores(gluonfr, weight, weight_norm, feature_norm):
    dense = gluonfr.NormDense(
        CLASSES, weight_norm=weight_norm, feature_norm=feature_norm, in_units=SIZE
    )
    dense.initialize()
    dense.weight.set_data(mx.nd.array(weight))
    return dense


def theirs(loss, embedding, label, dense=None, embedding_too=False, **parameters):
    """Return GluonFR's loss per image, and the gradient of its sum."""
    loss.initialize()
    for key, value in parameters.items():
        getattr(loss, key).set_data(mx.nd.array(value))
    x, label = mx.nd.array(embedding), mx.nd.array(label)
    x.attach_grad()
    with mx.autograd.record():
        found = loss(dense(x) if dense else x, label, *((x,) if embedding_too else ()))
        if isinstance(found, tuple):  # lgm: and the probabilities
            found = found[0]
    found.backward()
    return found.asnumpy(), x.grad.asnumpy()


def same(first, second):
    (loss, gradient), (their_loss, their_gradient) = first, second
    np.testing.assert_allclose(loss, their_loss, rtol=1e-5, atol=1e-5)
    limit = 1e-4 * abs(their_gradient).max()
    np.testing.assert_allclose(gradient, their_gradient, rtol=1e-3, atol=limit)


def unit(rows):
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


# Correct losses


@pytest.mark.parametrize("label", [DISTINCT, REPEATED], ids=["distinct", "repeated"])
def test_softmax(gluonfr, embedding, weight, label):
    dense = scores(gluonfr, weight, False, False)
    same(
        ours("softmax", weight, embedding, label),
        theirs(gluonfr.get_loss("softmax"), embedding, label, dense),
    )


@pytest.mark.parametrize("easy", [False, True], ids=["guarded", "easy"])
def test_arcface(gluonfr, embedding, weight, easy):
    # 0.5 to 3.1 radians; some are past the guard
    for label in (DISTINCT, REPEATED, np.full(BATCH, 2)):
        loss = gluonfr.ArcLoss(CLASSES, m=0.5, s=16.0, easy_margin=easy)
        same(
            ours("arcface", weight, embedding, label, m2=0.5, scale=16.0, easy_margin=easy),
            theirs(loss, embedding, label, scores(gluonfr, weight, True, True)),
        )
    opposite = -weight[DISTINCT] + 0.1
    loss = gluonfr.ArcLoss(CLASSES, m=0.5, s=16.0, easy_margin=easy)
    same(
        ours("arcface", weight, opposite, DISTINCT, scale=16.0, easy_margin=easy),
        theirs(loss, opposite, DISTINCT, scores(gluonfr, weight, True, True)),
    )


def test_cosface(gluonfr, embedding, weight):
    loss = gluonfr.CosLoss(CLASSES, m=0.35, s=16.0)
    same(
        ours("cosface", weight, embedding, DISTINCT, m3=0.35, scale=16.0),
        theirs(loss, embedding, DISTINCT, scores(gluonfr, weight, True, True)),
    )


def test_ring(gluonfr, embedding, weight):
    for radius in (1.0, 20.0):
        loss = gluonfr.RingLoss(0.1, r_init=radius)
        found = theirs(loss, embedding, REPEATED, scores(gluonfr, weight, False, False), True)
        settings = {"ring_weight": 0.1, "radius": radius}
        same(ours("ring", weight, embedding, REPEATED, **settings), found)


def test_l2_softmax_of_scores_that_are_normalised_before(gluonfr, embedding, weight):
    loss = gluonfr.L2Softmax(CLASSES, alpha=6.0, from_normx=True)
    same(
        ours("l2_softmax", weight, embedding, DISTINCT, scale=6.0),
        theirs(loss, embedding, DISTINCT, scores(gluonfr, weight, False, True)),
    )


def test_lgm_near_the_means(gluonfr, embedding, weight):
    loss = gluonfr.LGMLoss(CLASSES, SIZE, alpha=0.2, lamda=0.1, lr_mult=0.06)
    same(
        ours("lgm", weight, embedding, DISTINCT, alpha=0.2, likelihood_weight=0.1),
        theirs(loss, embedding, DISTINCT, mean=weight),
    )


def test_coco(gluonfr, embedding, weight):
    loss = gluonfr.COCOLoss(CLASSES, SIZE, alpha=6.25)
    same(
        ours("coco", weight, embedding, REPEATED, scale=6.25),
        theirs(loss, embedding, REPEATED, centers=weight),
    )


def test_center_with_every_person_once(gluonfr, embedding, weight):
    centers = np.random.RandomState(2).randn(CLASSES, SIZE).astype("f4")
    loss = gluonfr.CenterLoss(CLASSES, SIZE, lamda=0.5)
    dense = scores(gluonfr, weight, False, False)
    states = [("centers", centers)]
    same(
        ours("center", weight, embedding, DISTINCT, states=states, center_weight=0.5),
        theirs(loss, embedding, DISTINCT, dense, True, centers=centers),
    )
    # With several images of a person it divides by their number, the paper's equation 2 does not.
    plain = ours("center", weight, embedding, REPEATED, states=states, center_weight=0.5)[0]
    loss = gluonfr.CenterLoss(CLASSES, SIZE, lamda=0.5)
    divided = theirs(loss, embedding, REPEATED, dense, True, centers=centers)[0]
    softmax = ours("softmax", weight, embedding, REPEATED)[0]
    count = np.array([3, 3, 3, 2, 2, 2, 2])
    np.testing.assert_allclose((plain - softmax) / count, divided - softmax, rtol=1e-4, atol=1e-5)
    # Its centres are parameters of the trainer, which its learning rate and decay move; the
    # paper's equation 4 moves them by a rate of their own.
    assert loss.centers.grad_req == "write"


def triplets(gluonfr, mixed, margin):
    x = unit(mixed).reshape(3, -1, SIZE)
    loss = gluonfr.TripletLoss(margin=margin)
    return loss(*map(mx.nd.array, x)).asnumpy()


def test_triplet_of_given_triplets(gluonfr):
    mixed = np.random.RandomState(3).randn(12, SIZE).astype("f4")
    label = np.tile([0, 1, 2, 3], 3)
    label[8:] += 1
    for margin in (0.3, 1.0):
        loss, _ = ours("triplet", None, mixed, label, margin=margin, mining="blocks")
        # Our loss is per image of the batch, of which a third are anchors. It normalises.
        np.testing.assert_allclose(loss[:4] / 3, triplets(gluonfr, mixed, margin), rtol=1e-5)
        assert not loss[4:].any()


def test_sv_softmax_before_the_guard(gluonfr, embedding, weight):
    # GluonFR subtracts m2 from the cosine and adds m3 to the angle, the reverse of our names.
    dense = scores(gluonfr, weight, True, True)
    cosine = (unit(embedding) @ unit(weight).T)[np.arange(BATCH), DISTINCT]
    near = np.arccos(cosine) < math.pi - 0.3
    assert near.sum() >= 4
    loss = gluonfr.SVXSoftmax(CLASSES, s=16.0, t=1.2, m1=1, m2=0.2, m3=0.3)
    found, _ = theirs(loss, embedding, DISTINCT, dense)
    settings = {"t": 1.2, "m2": 0.3, "m3": 0.2, "scale": 16.0}
    loss, _ = ours("sv_softmax", weight, embedding, DISTINCT, **settings)
    np.testing.assert_allclose(loss[near], found[near], rtol=1e-5, atol=1e-5)
    # Past the guard GluonFR's psi rises again: 180 degrees cost less than 163 degrees.
    centre = np.eye(CLASSES, SIZE, dtype="f4")
    far = np.array([[-1, 0, 0, 0, 0], [math.cos(2.84), math.sin(2.84), 0, 0, 0]], "f4")
    for row in (far * 0.999,):
        cosines = mx.nd.array(row @ centre.T)
        loss = gluonfr.SVXSoftmax(CLASSES, s=1.0, m3=0.3)
        opposite, before = loss(cosines, mx.nd.zeros(2)).asnumpy()
    found, _ = ours("sv_softmax", centre, far, np.zeros(2), t=1.0, m2=0.3, m3=0.0, scale=1.0)
    assert opposite < before and found[0] > found[1]


def test_a_softmax_when_its_annealing_has_ended(gluonfr, embedding, weight):
    # Our loss uses the length of the embedding, as in the paper; GluonFR uses a fixed scale.
    embedding = 8 * unit(embedding)
    for m1 in (1, 2, 3, 4):
        loss = gluonfr.ASoftmax(CLASSES, m=m1, s=8.0)
        loss.it = 10**6
        dense = scores(gluonfr, weight, True, True)
        found, _ = theirs(loss, embedding, DISTINCT, dense)
        expected, _ = ours("a_softmax", weight, embedding, DISTINCT, m1=m1)
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=2e-5)


# Defects


def test_a_softmax_never_anneals_hybridized(gluonfr, embedding, weight):
    # lambda falls from 1364 to 5 by a counter in hybrid_forward, which runs once, for the graph.
    cosines = mx.nd.array(unit(embedding) @ unit(weight).T)
    imperative, hybrid = (gluonfr.ASoftmax(CLASSES, m=4, s=8.0) for _ in range(2))
    hybrid.hybridize()
    for loss in (imperative, hybrid):
        found = [loss(cosines, mx.nd.array(DISTINCT)).asnumpy() for _ in range(60)]
        moved = abs(found[-1] - found[0]).max()
        if loss is imperative:
            assert loss.it == 60 and loss.lamb < 215 and moved > 0.05
        else:
            assert loss.it == 1 and loss.lamb > 1363 and moved == 0


def test_arcface_has_no_gradient_on_the_centre(gluonfr):
    # GluonFR does not clip: the slope of arccos at 1 is infinite, and one image stops training.
    weight = np.eye(CLASSES, SIZE, dtype="f4") + 1e-12
    x, label = 2 * np.eye(2, SIZE, dtype="f4"), np.array([0, 1])
    loss = gluonfr.ArcLoss(CLASSES, m=0.5, s=16.0, easy_margin=False)
    _, gradient = theirs(loss, x, label, scores(gluonfr, weight, True, True))
    assert np.isnan(gradient).any()
    assert np.isfinite(ours("arcface", weight, x, label, scale=16.0)[1]).all()


def test_ring_has_no_gradient_without_length(gluonfr, weight):
    x, label = np.zeros((2, SIZE), "f4"), np.array([0, 1])
    _, gradient = theirs(
        gluonfr.RingLoss(0.1), x, label, scores(gluonfr, weight, False, False), True
    )
    assert np.isnan(gradient).any()
    assert np.isfinite(ours("ring", weight, x, label)[1]).all()


def test_l2_softmax_normalises_the_scores_by_default(gluonfr, embedding, weight):
    # The paper constrains the embedding. By default GluonFR scales the scores to the length alpha:
    # two images whose scores differ by a factor have the same loss.
    loss = gluonfr.L2Softmax(CLASSES, alpha=6.0)
    found, _ = theirs(loss, embedding, DISTINCT, scores(gluonfr, weight, False, False))
    expected, _ = ours("l2_softmax", weight, embedding, DISTINCT, scale=6.0)
    assert abs(found - expected).max() > 0.5
    of_scores = 6 * unit(embedding @ weight.T)
    np.testing.assert_allclose(found, oracles.cross_entropy(of_scores, DISTINCT), rtol=1e-5)


def test_lgm_is_cut_off_far_from_the_means(gluonfr, embedding, weight):
    # GluonFR computes exp(-d) without subtraction of the maximum and adds 1e-8: from a distance of
    # about 14 the loss of all images is log 1e8, without a gradient of the classification.
    far = 20 * unit(embedding)
    settings = {"alpha": 0.2, "lamda": 0.0, "lr_mult": 0.06}
    loss = gluonfr.LGMLoss(CLASSES, SIZE, **settings)
    found, gradient = theirs(loss, far, DISTINCT, mean=weight)
    np.testing.assert_allclose(found, math.log(1e8), rtol=1e-5)
    assert not gradient.any()
    loss, gradient = ours("lgm", weight, far, DISTINCT, alpha=0.2, likelihood_weight=0.0)
    point = oracles.Point(far.astype("f8"), weight.astype("f8"))
    expected = oracles.lgm(point, point, DISTINCT, 1.0, alpha=0.2, likelihood_weight=0.0)
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    assert (abs(gradient).max(axis=1) > 0.1).all()


def test_git_pushes_away_from_the_own_centre(gluonfr, embedding, weight):
    centers = np.random.RandomState(2).randn(CLASSES, SIZE).astype("f4")
    dense, states = scores(gluonfr, weight, False, False), [("centers", centers)]
    settings = {"center_weight": 0.5, "git_weight": 0.7}

    def both(label):
        loss = gluonfr.GitLoss(CLASSES, SIZE, 0.5, 0.7, BATCH)
        found, _ = theirs(loss, embedding, label, dense, True, centers=centers)
        return ours("git", weight, embedding, label, states=states, **settings)[0], found

    # One image per person: the mask leaves the constant 1 / (1 + 0) of the image itself.
    loss, found = both(DISTINCT)
    np.testing.assert_allclose(found - 0.7 / BATCH, loss, rtol=1e-5, atol=1e-5)
    # Otherwise other images of the person count as other people: the push and the pull act on the
    # same centre. The pull is divided as in the centre loss.
    loss, found = both(REPEATED)
    own = ((embedding - centers[REPEATED]) ** 2).sum(1)
    count = np.array([3, 3, 3, 2, 2, 2, 2])
    pushed = 0.7 / BATCH * (1 + (count - 1) / (1 + own))
    pull = 0.25 * own * (1 / count - 1)
    np.testing.assert_allclose(found - pushed - pull, loss, rtol=1e-4, atol=1e-4)
    # The batch size is a constant of the loss: every other size is an error.
    with pytest.raises(mx.MXNetError):
        loss = gluonfr.GitLoss(CLASSES, SIZE, 0.5, 0.7, BATCH)
        theirs(loss, embedding[:3], DISTINCT[:3], dense, True, centers=centers)


def test_contrastive_uses_another_distance(gluonfr):
    # GluonFR uses sqrt(sum (a - p)^4) instead of sqrt(sum (a - p)^2), so the loss depends on the
    # axes; and it omits the factor 1 / 2.
    a = np.array([[1, 0, 0, 0, 0]], "f4").repeat(2, 0)
    angle = 0.8
    others = np.array(
        [[1, 0, 0, 0, 0], [1, 1, 1, 1, 1] / np.sqrt(5)] * 1, "f4"
    )  # along an axis; across all
    side = others[1] - others[1, 0] * a[0]
    p = np.stack(
        [
            math.cos(angle) * a[0] + math.sin(angle) * np.eye(1, SIZE, 1, dtype="f4")[0],
            math.cos(angle) * a[0] + math.sin(angle) * side / np.linalg.norm(side),
        ]
    ).astype("f4")
    for same_person in (1, 0):
        labels = mx.nd.array([same_person] * 2)
        found = gluonfr.ContrastiveLoss(margin=1.0)(mx.nd.array(a), mx.nd.array(p), labels)
        fourth = np.sqrt(((a - p) ** 4).sum(1))
        formula = fourth**2 if same_person else np.maximum(1 - fourth, 0) ** 2
        np.testing.assert_allclose(found.asnumpy(), formula, rtol=1e-4)
        assert abs(found.asnumpy()[0] / found.asnumpy()[1] - 1) > 0.2
        pair = np.array([0, 0 if same_person else 1])
        each = [
            ours("contrastive", None, np.stack(images), pair, margin=1.0)[0].mean()
            for images in zip(a, p)
        ]
        d = np.linalg.norm(a - p, axis=1)
        right = d**2 / 2 if same_person else np.maximum(1 - d, 0) ** 2 / 2
        np.testing.assert_allclose(each, right, rtol=1e-4)
        np.testing.assert_allclose(each[0], each[1], rtol=1e-4)


def test_mps_is_a_matrix_and_ignores_negatives_below_zero(gluonfr):
    first = np.array([[1, 0.0, 0, 0, 0], [-1, 0.1, 0, 0, 0]], "f4")
    second = np.array([[1, 0.3, 0, 0, 0], [-1, 0.4, 0, 0, 0]], "f4")
    found = gluonfr.MPSLoss(m=1.5)(mx.nd.array(first), mx.nd.array(second)).asnumpy()
    own = (unit(first) * unit(second)).sum(1)
    assert (unit(first) @ unit(second[::-1]).T)[0, 0] < -0.9
    # (B, 1) minus (B,) is (B, B): the hardest negative of each person against all positives. The
    # diagonal of the similarities is set to 0 instead of excluded: 0 is always a negative.
    assert found.shape == (2, 2)
    np.testing.assert_allclose(found, np.maximum(0, 1.5 + 0 - own)[None].repeat(2, 0) / 2, 1e-4)
    x, label = np.concatenate([first, second]), np.array([0, 1, 0, 1])
    loss, _ = ours("mps", None, x, label, margin=1.5)
    point = oracles.Point(x.astype("f8"))
    np.testing.assert_allclose(loss, oracles.mps(point, point, label, 1.0, margin=1.5), atol=1e-6)
    assert loss.max() == 0.0  # all negatives lie beyond the margin


def test_range_differs_from_the_paper(gluonfr):
    people, images = 3, 4
    label = np.repeat(np.arange(people), images)
    x = np.random.RandomState(5).randn(people * images, SIZE).astype("f4")

    def found(alpha, beta, k=2, n=images, rows=x, margin=50.0):
        loss = gluonfr.RangeLoss(alpha, beta, k, len(rows) // n, n, SIZE, margin)
        return float(loss(mx.nd.array(rows), None).asscalar())

    def right(intra, inter, k=2, rows=x, at=label, margin=50.0):
        parts = {"intra_weight": intra, "inter_weight": inter, "largest": k, "margin": margin}
        whole = ours("range", np.zeros((CLASSES, SIZE)), rows, at, **parts)[0]
        return float(whole.mean() - math.log(CLASSES))

    # GluonFR documents alpha as the weight within people, but uses it between people.
    distances = np.sqrt([((a - b) ** 2).sum() for a in x for b in x]).reshape(len(x), -1)
    means = x.reshape(people, images, SIZE).mean(1)
    between = min(np.linalg.norm(means[i] - means[j]) for i in range(people) for j in range(i))
    np.testing.assert_allclose(found(1, 0), 50 - between, rtol=1e-4)
    np.testing.assert_allclose(right(0, 1), 50 - between**2, rtol=1e-4)
    # Its distances are not squared.
    within = 0.0
    for person in range(people):
        block = distances[label == person][:, label == person]
        largest = np.sort(block[np.triu_indices(images, 1)])[-2:]
        within += 2 / (1 / largest).sum()
    np.testing.assert_allclose(found(0, 1), within, rtol=1e-4)
    assert abs(right(1, 0) / within - 1) > 0.3
    # Two images of a person are one pair: a distance of 0 fills the second place, and the harmonic
    # mean is then 0. There is neither a pull nor a graph.
    pairs, at = x[:6], np.repeat(np.arange(3), 2)
    assert abs(found(0, 1, n=2, rows=pairs)) < 1e-6
    assert right(1, 0, rows=pairs, at=at) > 1
    loss = gluonfr.RangeLoss(1, 1, 2, people, images, SIZE, 50.0)
    loss.hybridize()
    with pytest.raises(AttributeError):
        loss(mx.nd.array(x), mx.nd.array(label))


def test_names_missing_from_the_registry(gluonfr):
    for name in ("cosLoss", "cosloss", "mpsloss", "rangeloss"):
        with pytest.raises(ValueError, match="is not among the following"):
            gluonfr.get_loss(name, **({"classes": 7, "m": 0.3, "s": 8} if "cos" in name else {}))
    assert "cosLoss" in gluonfr.get_loss_list()  # names are lowered before they are looked up
    assert isinstance(gluonfr.get_loss("mpsoss"), gluonfr.MPSLoss)  # a slip
