from __future__ import annotations

import mxnet as mx
import numpy as np
import pytest

from interchange.model import InterchangeError
from interchange.read_gluonfr import _prefix_name, _structure_name, read_gluonfr
from tests.interchange.small_models import SIZE, embed, forward, images, random_model

# Names of GluonFR 1.0.2: our parameter, the name in save_parameters, and the name in
# collect_params().save without the prefix of the network.
NAMES = [
    ("stem.conv.weight", "features.0.0.weight", "feature_conv0_weight"),
    ("stem_depthwise.act.alpha", "features.1.2.alpha", "feature_prelu1_alpha"),
    (
        "stages.0.4.project.norm.running_var",
        "features.2.4.out.2.1.running_var",
        "feature_stage1_bottleneck4_batchnorm2_running_var",
    ),
    (
        "stages.1.0.expand.conv.weight",
        "features.3.0.out.0.0.weight",
        "feature_stage2_bottleneck0_conv0_weight",
    ),
    (
        "stages.1.6.depthwise.act.alpha",
        "features.4.5.out.1.2.alpha",
        "feature_stage3_bottleneck5_prelu1_alpha",
    ),
    (
        "stages.2.2.expand.norm.gamma",
        "features.6.1.out.0.1.gamma",
        "feature_stage5_bottleneck1_batchnorm0_gamma",
    ),
    ("last.norm.beta", "features.7.1.beta", "feature_batchnorm2_beta"),
    ("embedding.pool.conv.weight", "features.8.0.weight", "feature_conv3_weight"),
    ("embedding.linear.weight", "features.9.weight", "feature_conv4_weight"),
    ("embedding.norm.running_mean", "features.10.running_mean", "feature_batchnorm4_running_mean"),
]


@pytest.mark.parametrize(("own", "structure", "prefix"), NAMES)
def test_names_are_those_of_the_package(own, structure, prefix):
    assert _structure_name(own) == structure
    assert _prefix_name(own) == prefix


@pytest.fixture(scope="module")
def model():
    """Network as GluonFR has it: one slope for all channels, and a last gamma of 1."""
    made = random_model()
    for name, values in made.parameters.items():
        if name.endswith("alpha"):
            values[:] = values[0]
    made.parameters["embedding.norm.gamma"][:] = 1
    return made


def arrays(model, rename, prefix: str = "") -> dict[str, np.ndarray]:
    found = {}
    for own, values in model.parameters.items():
        if own.endswith("alpha"):
            values = values[:1]
        elif own == "embedding.linear.weight":
            values = values[:, :, None, None]
        elif own == "embedding.norm.gamma":
            values = np.full_like(values, 7)  # MXNet ignores this gamma
        found[prefix + rename(own)] = values
    return found


def save(path, content: dict[str, np.ndarray]):
    mx.nd.save(str(path), {name: mx.nd.array(values) for name, values in content.items()})
    return path


CENTRES = np.arange(24, dtype=np.float32).reshape(3, 8)


@pytest.mark.parametrize(
    ("rename", "prefix", "classifier"),
    [
        (_structure_name, "", "output.weight"),
        (_prefix_name, "mobilefacenet0_", "output_weight"),
        (_prefix_name, "", None),
    ],
)
def test_weights_and_class_centres_are_read(tmp_path, model, rename, prefix, classifier):
    content = arrays(model, rename, prefix)
    if classifier:
        content[classifier] = CENTRES
    found = read_gluonfr(save(tmp_path / "a.params", content), mean=127.5, std=128)
    assert found.net == model.net and found.image_size == SIZE and found.kind == "gluonfr"
    for name, values in model.parameters.items():
        np.testing.assert_array_equal(found.parameters[name], values, name)
    assert [*found.head] == (["weight"] if classifier else [])
    if classifier:
        np.testing.assert_array_equal(found.head["weight"], CENTRES)


def test_pixels_divided_by_255_give_the_same_embeddings(tmp_path, model):
    found = read_gluonfr(save(tmp_path / "a.params", arrays(model, _structure_name)))
    assert found.net["name"] == "graph" and "(x - 0.0) / 255.0" in found.notices[-1]
    wanted = forward(model, images() / 255)
    np.testing.assert_allclose(embed(found, images()), wanted, atol=1e-5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"features.9.weight": None}, "with a tensor 'features.9.weight' of 4 axes"),
        ({"features.5.0.out.1.0.weight": None}, "got no tensor 'features.5.0.out.1.0.weight'"),
        ({"features.3.0.out.0.0.weight": np.ones((64, 64, 1, 1))}, r"got \(64, 64, 1, 1\)"),
        ({"features.0.2.alpha": np.ones(3)}, r"'features.0.2.alpha' has the shape \(64,\)"),
        (
            {"features.2.0.out.3.fc.0.weight": np.ones((4, 64, 1, 1))},
            "must be GluonFR's mobilefacenet or one of .* got 284 tensors",
        ),
        ({"features.11.weight": np.ones(2)}, "has no layer for a tensor 'features.11.weight'"),
        ({"output.weight": np.ones((3, 9))}, r"the shape \(classes, 8\), got \(3, 9\)"),
    ],
)
def test_the_first_tensor_that_does_not_fit_is_named(tmp_path, model, changes, message):
    content = {**arrays(model, _structure_name), **changes}
    content = {name: values for name, values in content.items() if values is not None}
    with pytest.raises(InterchangeError, match=message):
        read_gluonfr(save(tmp_path / "a.params", content))


def test_damaged_files_and_two_networks_in_one_are_refused(tmp_path, model):
    path = tmp_path / "a.params"
    with pytest.raises(InterchangeError, match="cannot be read, got 'No such file"):
        read_gluonfr(path)
    content = arrays(model, _prefix_name, "a_")
    save(path, {**content, **arrays(model, _prefix_name, "b_")})
    with pytest.raises(
        InterchangeError, match="must contain one network, got the prefixes 'a_', 'b_'"
    ):
        read_gluonfr(path)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(InterchangeError, match="truncated|too short"):
        read_gluonfr(path)


@pytest.mark.parametrize(
    ("name", "size"),
    [("gluonfr_mobilefacenet", SIZE), ("seresnet18", (112, 112)), ("attention56", (112, 112))],
)
def test_the_other_networks_are_read_by_the_order_of_their_tensors(tmp_path, name, size):
    model = random_model(name, size)
    fixed = [n for n in ("embedding.norm.gamma", "input_norm.gamma") if n in model.parameters]
    content = {"output.weight": CENTRES}
    for number, (own, values) in enumerate(model.parameters.items()):
        if own.endswith("alpha"):
            values[:] = values[0]
            values = values[:1]
        content[f"features.{number}.{own.rpartition('.')[2]}"] = values
    path = save(tmp_path / "a.params", content)
    found = read_gluonfr(path, mean=127.5, std=128)
    assert (found.net, found.image_size) == (model.net, size)
    for own, values in model.parameters.items():
        wanted = np.ones_like(values) if own in fixed else values
        np.testing.assert_array_equal(found.parameters[own], wanted, own)
    np.testing.assert_array_equal(found.head["weight"], CENTRES)
