# SPDX-License-Identifier: Apache-2.0
"""Every head against the same float64 oracle, and the edges that broke others."""

import math
from inspect import signature

import mxnet as mx
import numpy as np
import pytest

from heads import HEADS, build_head

CLASSES, SIZE, BATCH = 7, 5, 12
# label of the case -> (name, settings, margins m1 m2 m3, scale)
CASES = {
    "softmax": ("softmax", {}, None, 1.0),
    "softmax bias": ("softmax", {"use_bias": True}, None, 1.0),
    "l2_softmax": ("l2_softmax", {"scale": 6.0, "use_bias": True}, None, 6.0),
    "normface": ("normface", {"scale": 16.0}, (1, 0, 0), 16.0),
    "sphereface": ("sphereface", {"m1": 1.35, "scale": 20.0}, (1.35, 0, 0), 20.0),
    "cosface": ("cosface", {"m3": 0.35, "scale": 24.0}, (1, 0, 0.35), 24.0),
    "arcface": ("arcface", {"m2": 0.5, "scale": 32.0}, (1, 0.5, 0), 32.0),
    "arcface easy": ("arcface", {"scale": 8.0, "easy_margin": True}, (1, 0.5, 0), 8.0),
    "combined": ("combined", {"m1": 1.0, "m2": 0.3, "m3": 0.2, "scale": 16.0}, (1, 0.3, 0.2), 16.0),
    "combined folded": (
        "combined",
        {"m1": 1.2, "m2": 0.4, "m3": 0.1, "scale": 8.0},
        (1.2, 0.4, 0.1),
        8.0,
    ),
}
NO_MARGIN = {
    "sphereface": {"m1": 1.0},
    "cosface": {"m3": 0.0},
    "arcface": {"m2": 0.0},
    "combined": {"m1": 1.0, "m2": 0.0, "m3": 0.0},
}


def margin(cosine, margins, easy):
    m1, m2, m3 = margins
    angle = math.acos(max(-1.0, min(1.0, cosine)))
    total = m1 * angle + m2
    if m1 != 1:
        turns = math.floor(total / math.pi)
        return (-1) ** turns * math.cos(total) - 2 * turns - m3
    if easy:
        return (math.cos(total) if cosine > 0 else cosine) - m3
    if angle > math.pi - m2:
        return cosine - m2 * math.sin(m2) - m3
    return math.cos(total) - m3


def oracle(case, embedding, weight, label, fraction=1.0, bias=None):
    """Loss per image and cosine to the true class, in float64 from the equations."""
    _, settings, margins, scale = CASES[case]
    unit = embedding / np.linalg.norm(embedding, axis=1, keepdims=True)
    centre = weight / np.linalg.norm(weight, axis=1, keepdims=True)
    cosine = unit @ centre.T
    rows = np.arange(len(label))
    target = cosine[rows, label]
    if margins is None:
        scaled = embedding if scale == 1 else unit * scale
        logits = scaled @ weight.T + (0 if bias is None else bias)
    else:
        easy = settings.get("easy_margin", False)
        psi = np.array([margin(c, margins, easy) for c in target])
        logits = cosine.copy()
        logits[rows, label] = (1 - fraction) * target + fraction * psi
        logits *= scale
    top = logits.max(axis=1)
    total = top + np.log(np.exp(logits - top[:, None]).sum(axis=1))
    return total - logits[rows, label], target


def numeric_gradient(function, array, step=1e-6):
    gradient = np.zeros_like(array)
    for index in np.ndindex(*array.shape):
        kept = array[index]
        array[index] = kept + step
        above = function()
        array[index] = kept - step
        below = function()
        array[index] = kept
        gradient[index] = (above - below) / (2 * step)
    return gradient


def inputs(seed=0, angles=None):
    random = np.random.RandomState(seed)
    weight = random.randn(CLASSES, SIZE) * 0.3
    label = np.arange(BATCH) % CLASSES  # both ends
    embedding = random.randn(BATCH, SIZE) * 3
    if angles is not None:  # rotate each embedding to a given angle from its class centre
        centre = weight[label] / np.linalg.norm(weight[label], axis=1, keepdims=True)
        side = embedding - (embedding * centre).sum(1, keepdims=True) * centre
        side /= np.linalg.norm(side, axis=1, keepdims=True)
        embedding = 3 * (np.cos(angles)[:, None] * centre + np.sin(angles)[:, None] * side)
    # What float32 cannot hold must not count as an error of the head.
    return embedding.astype("f4").astype("f8"), weight.astype("f4").astype("f8"), label


def build(case, weight, hybridize=False):
    name, settings, _, _ = CASES[case]
    head = build_head(name, weight.shape[0], weight.shape[1], **settings)
    head.initialize()
    head.weight.set_data(mx.nd.array(weight))
    if hybridize:
        head.hybridize(static_alloc=True, static_shape=True)
    return head


def run(head, embedding, label, *fraction, out_gradient=None):
    embedding = mx.nd.array(embedding)
    embedding.attach_grad()
    with mx.autograd.record():
        loss, cosine = head(embedding, mx.nd.array(label), *fraction)
    loss.backward(out_gradient)
    arrays = loss, cosine, embedding.grad, head.weight.grad()
    return [array.asnumpy() for array in arrays]


@pytest.mark.parametrize("hybridize", [False, True], ids=["imperative", "hybridized"])
@pytest.mark.parametrize("case", CASES)
def test_values_and_gradients_against_the_equations(case, hybridize):
    # 4 to 174 degrees in twelve steps; the last two lie on the guarded side of arcface
    embedding, weight, label = inputs(angles=np.radians(np.linspace(4, 174, BATCH)))
    head = build(case, weight, hybridize)
    bias = None
    if CASES[case][1].get("use_bias"):
        bias = np.linspace(-1, 1, CLASSES).astype("f4").astype("f8")
        head.bias.set_data(mx.nd.array(bias))
    upstream = np.linspace(0.5, 1.5, BATCH)
    loss, cosine, d_embedding, d_weight = run(
        head, embedding, label, out_gradient=mx.nd.array(upstream)
    )
    expected_loss, expected_cosine = oracle(case, embedding, weight, label, bias=bias)
    np.testing.assert_allclose(loss, expected_loss, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(cosine, expected_cosine, atol=1e-6)

    def total():
        return (upstream * oracle(case, embedding, weight, label, bias=bias)[0]).sum()

    for ours, array in ((d_embedding, embedding), (d_weight, weight)):
        expected = numeric_gradient(total, array)
        np.testing.assert_allclose(ours, expected, rtol=1e-3, atol=2e-4 * abs(expected).max())


@pytest.mark.parametrize("case", CASES)
def test_value_at_every_degree(case):
    _, weight, _ = inputs()
    angles = np.radians(np.arange(180)) + 1e-3
    label = np.arange(180) % CLASSES
    centre = weight[label] / np.linalg.norm(weight[label], axis=1, keepdims=True)
    side = np.random.RandomState(1).randn(180, SIZE)
    side -= (side * centre).sum(1, keepdims=True) * centre
    side /= np.linalg.norm(side, axis=1, keepdims=True)
    embedding = np.cos(angles)[:, None] * centre + np.sin(angles)[:, None] * side
    loss, cosine, d_embedding, d_weight = run(build(case, weight), embedding, label)
    expected_loss, expected_cosine = oracle(case, embedding, weight, label)
    # arccos turns an error of 1e-7 in a cosine near 1 into one of 1e-7 / sin t in the angle
    np.testing.assert_allclose(loss, expected_loss, rtol=1e-4, atol=5e-3)
    np.testing.assert_allclose(loss[5:175], expected_loss[5:175], rtol=1e-5, atol=2e-4)
    np.testing.assert_allclose(cosine, expected_cosine, atol=1e-6)
    assert np.isfinite(d_embedding).all() and np.isfinite(d_weight).all()


@pytest.mark.parametrize("case", CASES)
def test_hybridized_equals_imperative_through_changing_fractions(case):
    embedding, weight, label = inputs()
    plain, hybrid = build(case, weight), build(case, weight, hybridize=True)
    for fraction in (0.0, 0.5, 1.0):
        fraction = mx.nd.array([fraction])
        for ours, theirs in zip(
            run(hybrid, embedding, label, fraction),
            run(plain, embedding, label, fraction),
            strict=True,
        ):
            np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-6)
    for ours, theirs in zip(
        run(hybrid, embedding, label), run(plain, embedding, label), strict=True
    ):
        np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("fraction", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("case", CASES)
def test_margin_fraction_mixes_the_cosine_and_the_margin(case, fraction):
    embedding, weight, label = inputs(3)
    loss, cosine, d_embedding, _ = run(
        build(case, weight), embedding, label, mx.nd.array([fraction])
    )
    expected, expected_cosine = oracle(case, embedding, weight, label, fraction)
    np.testing.assert_allclose(loss, expected, rtol=1e-5, atol=2e-5)
    np.testing.assert_allclose(cosine, expected_cosine, atol=1e-6)
    gradient = numeric_gradient(
        lambda: oracle(case, embedding, weight, label, fraction)[0].sum(), embedding
    )
    np.testing.assert_allclose(d_embedding, gradient, rtol=1e-3, atol=2e-4 * abs(gradient).max())


@pytest.mark.parametrize("name", NO_MARGIN)
def test_no_margin_is_normface(name):
    embedding, weight, label = inputs()
    neutral = build_head(name, CLASSES, SIZE, scale=16.0, **NO_MARGIN[name])
    neutral.initialize()
    neutral.weight.set_data(mx.nd.array(weight))
    for ours, theirs in zip(
        run(neutral, embedding, label),
        run(build("normface", weight), embedding, label),
        strict=True,
    ):
        np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("case", CASES)
def test_one_image(case):
    embedding, weight, label = inputs()
    several = run(build(case, weight), embedding, label)
    one = run(build(case, weight), embedding[:1], label[:1])
    for ours, theirs in zip(one[:3], several[:3], strict=True):
        np.testing.assert_allclose(ours, theirs[:1], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("scale", [64.0, 256.0])
@pytest.mark.parametrize(
    "name", [n for n, b in HEADS.items() if "scale" in signature(b).parameters]
)
def test_finite_at_both_ends_of_the_cosine(name, scale):
    _, weight, _ = inputs()
    label = np.arange(BATCH) % CLASSES
    embedding = weight[label] * np.where(np.arange(BATCH) < BATCH // 2, 3.0, -3.0)[:, None]
    head = build_head(name, CLASSES, SIZE, scale=scale)
    head.initialize()
    several = head.weight.shape[0] // CLASSES
    head.weight.set_data(mx.nd.array(weight.repeat(several, axis=0)))
    results = run(head, embedding, label)
    for array in results:
        assert np.isfinite(array).all()
    np.testing.assert_allclose(abs(results[1]), 1.0, atol=1e-6)
    # Slopes near +-1 are large, but the normalisation cancels them: no gradient passes what a
    # cosine can cause, scale * slope * sin t / length, by more than a small factor.
    assert abs(results[2]).max() < 10 * scale


@pytest.mark.parametrize("case", CASES)
def test_zero_embedding_has_finite_gradients(case):
    embedding, weight, label = inputs()
    embedding[0] = 0.0
    loss, cosine, d_embedding, d_weight = run(build(case, weight), embedding, label)
    for array in (loss, cosine, d_embedding, d_weight):
        assert np.isfinite(array).all()
    assert cosine[0] == 0.0


@pytest.mark.parametrize("case", CASES)
def test_confident_images_keep_their_loss(case):
    # The true class wins by far. oneDNN's logarithm near 1 and logits near 64 round by some 1e-6,
    # also below 0; a log-sum-exp that loses the leading digits would show here.
    embedding, weight, label = inputs(angles=np.full(BATCH, 0.05))
    loss = run(build(case, weight), embedding, label)[0]
    expected, _ = oracle(case, embedding, weight, label)
    np.testing.assert_allclose(loss, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("case", CASES)
def test_inputs_stay_as_they_are_and_labels_may_be_integers(case):
    embedding, weight, label = inputs()
    head = build(case, weight)
    arrays = mx.nd.array(embedding), mx.nd.array(label, dtype="int32"), mx.nd.ones((1,))
    before = [array.asnumpy() for array in arrays]
    arrays[0].attach_grad()
    with mx.autograd.record():
        loss, _ = head(*arrays)
    loss.backward()
    for array, kept in zip(arrays, before, strict=True):
        np.testing.assert_array_equal(array.asnumpy(), kept)
    np.testing.assert_array_equal(loss.asnumpy(), run(head, embedding, label)[0])


@pytest.mark.parametrize("case", ["softmax", "arcface"])
def test_no_gradient_flows_through_the_logged_cosine(case):
    embedding, weight, label = inputs()
    gradients = []
    for factor in (0.0, 1000.0):
        array = mx.nd.array(embedding)
        array.attach_grad()
        head = build(case, weight)
        with mx.autograd.record():
            loss, cosine = head(array, mx.nd.array(label))
            total = loss + factor * cosine
        total.backward()
        gradients.append(array.grad.asnumpy())
    np.testing.assert_array_equal(*gradients)


@pytest.mark.parametrize("name", HEADS)
def test_parameters_start_random_and_reproducible(name):
    states = []
    for _ in range(2):
        mx.random.seed(5)
        head = build_head(name, 400, 16)
        head.initialize()
        parameters = head._collect_params_with_prefix()
        states.append({key: p.data().asnumpy() for key, p in parameters.items()})
    for key, value in states[0].items():
        np.testing.assert_array_equal(value, states[1][key])
    learnt = {key: p.shape for key, p in parameters.items() if p.grad_req != "null"}
    if "weight" not in learnt:
        assert not learnt  # of pairs and triplets
        return
    centres = 1200 if name == "sub_center_arcface" else 400
    expected = {"weight": (centres, 16), **({"radius": (1,)} if name == "ring" else {})}
    assert learnt == expected
    deviation = np.sqrt(3 / (400 + 16) * 2 / 3) if name == "lgm" else 0.01
    assert abs(states[0]["weight"].std() / deviation - 1) < 0.05


@pytest.mark.parametrize(
    ("name", "settings", "sentence"),
    [
        ("arcfase", {}, "head.name: unknown head 'arcfase'; did you mean 'arcface'? known: softm"),
        ("zzz", {}, "head.name: unknown head 'zzz'; known: softmax, l2_softmax, normface"),
        ("l2_softmax", {"scale": 1.0}, "head.scale: must be a number from 3.807, got 1.0; below"),
        ("cosface", {"m2": 0.5}, "head.m2: no setting of head 'cosface'; known: m3, scale"),
        ("arcface", {"m2": 2.0}, "head.m2: must be a number from 0 up to 1.5708, got 2.0; it is"),
        ("arcface", {"m2": "0.5"}, "head.m2: must be a number from 0 up to 1.5708, got '0.5'"),
        ("arcface", {"scale": 0}, "head.scale: must be a number above 0, got 0; 30 to 64"),
        ("arcface", {"scale": math.inf}, "head.scale: must be a number above 0, got inf"),
        ("arcface", {"scale": math.nan}, "head.scale: must be a number above 0, got nan"),
        ("arcface", {"easy_margin": 1}, "head.easy_margin: must be true or false, got 1"),
        ("cosface", {"m3": -0.1}, "head.m3: must be a number from 0 up to 1, got -0.1"),
        ("sphereface", {"m1": 0}, "head.m1: must be a number above 0 up to 4, got 0"),
        ("softmax", {"use_bias": "yes"}, "head.use_bias: must be true or false, got 'yes'"),
    ],
)
def test_bad_settings_are_refused_in_a_sentence(name, settings, sentence):
    with pytest.raises(ValueError) as error:
        build_head(name, CLASSES, SIZE, **settings)
    assert str(error.value).startswith(sentence)


@pytest.mark.parametrize("name", ["softmax", "arcface"])
def test_bad_sizes_are_refused(name):
    with pytest.raises(ValueError, match="num_classes: must be a whole number from 2, got 1"):
        build_head(name, 1, SIZE)
    with pytest.raises(ValueError, match="embedding_size: must be a whole number from 1, got 0"):
        build_head(name, CLASSES, 0)
