from __future__ import annotations

import numpy as np
import pytest

from interchange.arcface_torch import find_net, torch_name, torch_names
from interchange.model import InterchangeError
from interchange.stored_tensor import StoredTensor

# Names and shapes of InsightFace's published code, for images of 112x112 pixels.
IRESNET18 = {
    "conv1.weight": (64, 3, 3, 3),
    "bn1.running_var": (64,),
    "prelu.weight": (64,),
    "layer1.0.bn1.weight": (64,),
    "layer2.0.conv1.weight": (128, 64, 3, 3),
    "layer2.0.bn2.bias": (128,),
    "layer2.0.prelu.weight": (128,),
    "layer2.0.conv2.weight": (128, 128, 3, 3),
    "layer2.0.bn3.running_mean": (128,),
    "layer2.0.downsample.0.weight": (128, 64, 1, 1),
    "layer2.0.downsample.1.weight": (128,),
    "layer4.1.conv2.weight": (512, 512, 3, 3),
    "bn2.weight": (512,),
    "fc.weight": (512, 25088),
    "fc.bias": (512,),
    "features.weight": (512,),
}
MOBILEFACENET = {
    "layers.0.layers.0.weight": (64, 3, 3, 3),
    "layers.0.layers.2.weight": (64,),
    "layers.1.layers.0.weight": (64, 1, 3, 3),
    "layers.2.layers.0.layers.0.weight": (128, 64, 1, 1),
    "layers.3.layers.3.layers.1.layers.1.running_mean": (128,),
    "layers.4.layers.2.layers.0.weight": (128, 256, 1, 1),
    "layers.5.layers.5.layers.0.layers.2.weight": (256,),
    "layers.6.layers.1.layers.0.weight": (512, 1, 3, 3),
    "layers.7.layers.1.layers.2.layers.1.bias": (128,),
    "conv_sep.layers.0.weight": (512, 128, 1, 1),
    "features.layers.0.layers.0.weight": (512, 1, 7, 7),
    "features.layers.2.weight": (512, 512),
    "features.layers.3.running_var": (512,),
}
MBF = {
    "layers.0.layers.0.weight": (128, 3, 3, 3),
    "layers.1.layers.0.weight": (128, 2, 3, 3),
    "layers.2.layers.0.layers.0.weight": (128, 128, 1, 1),
    "layers.4.layers.2.layers.0.weight": (256, 256, 1, 1),
    "layers.7.layers.1.layers.2.layers.1.bias": (256,),
    "conv_sep.layers.0.weight": (512, 256, 1, 1),
    "features.layers.2.weight": (512, 512),
}
MBF_LARGE = {
    "layers.0.layers.0.weight": (256, 3, 3, 3),
    "layers.1.layers.1.layers.0.layers.0.weight": (128, 256, 1, 1),
    "layers.1.layers.1.layers.1.layers.0.weight": (128, 1, 3, 3),
    "layers.1.layers.0.layers.2.layers.1.running_var": (256,),
    "layers.7.layers.3.layers.0.layers.2.weight": (256,),
    "conv_sep.layers.0.weight": (512, 512, 1, 1),
}
# Numbers of tensors without num_batches_tracked, from the state dicts of the published code.
COUNTS = {"iresnet18": 156, "mobilefacenet": 283, "mbf": 283, "mbf_large": 515}


@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("iresnet18", IRESNET18),
        ("mobilefacenet", MOBILEFACENET),
        ("mbf", MBF),
        ("mbf_large", MBF_LARGE),
    ],
)
def test_the_published_names_have_the_published_shapes(name, known):
    layers = torch_names("a.pth", {"name": name, "embedding_size": 512}, (112, 112))
    assert {each: layers[each].shape for each in known} == known
    # The linear layer of the mobilefacenets has no bias.
    assert len(layers) - (name != "iresnet18") == COUNTS[name]


def stored(net: dict, size=(112, 112)) -> dict[str, StoredTensor]:
    return {
        name: StoredTensor(layer.shape, "float32", lambda: np.zeros(1))
        for name, layer in torch_names("a.pth", net, size).items()
    }


@pytest.mark.parametrize(
    "name", ["iresnet18", "iresnet100", "iresnet200", "mobilefacenet", "mbf", "mbf_large"]
)
def test_depth_embedding_size_and_image_size_come_from_the_shapes(name):
    net = {"name": name, "embedding_size": 24}
    assert find_net("a.pth", stored(net, (96, 96)), None) == (net, (96, 96))


def test_a_feature_map_that_is_not_square_requires_the_image_size():
    net = {"name": "iresnet18", "embedding_size": 8}
    tensors = stored(net, (112, 96))
    with pytest.raises(InterchangeError, match="'fc.weight' must fit a square .* state the image"):
        find_net("a.pth", tensors, None)
    assert find_net("a.pth", tensors, (112, 96)) == (net, (112, 96))


def test_other_layouts_are_refused_by_name():
    def tensors(**shapes):
        return {n: StoredTensor(s, "float32", lambda: np.zeros(1)) for n, s in shapes.items()}

    scaled = tensors(**{"layers.0.layers.0.weight": (96, 3, 3, 3)})
    with pytest.raises(InterchangeError, match="got 1 blocks in the stem with 96 channels"):
        find_net("a.pth", scaled, None)
    blocks = {f"layers.1.layers.{i}.layers.0.layers.0.weight": (1,) for i in range(3)}
    large = tensors(**{"layers.0.layers.0.weight": (256, 3, 3, 3), **blocks})
    with pytest.raises(InterchangeError, match="got 3 blocks in the stem with 256 channels"):
        find_net("a.pth", large, None)
    units = [(i + 1, j) for i, count in enumerate((6, 26, 61, 6)) for j in range(count)]
    deep = {f"layer{i}.{j}.bn1.weight": (1,) for i, j in units}
    with pytest.raises(InterchangeError, match=r"got \(6, 26, 61, 6\) units"):
        find_net("a.pth", tensors(**{"conv1.weight": (64, 3, 3, 3), **deep}), None)
    with pytest.raises(InterchangeError, match="got 'blocks.0.weight'"):
        find_net("a.pth", tensors(**{"blocks.0.weight": (3,)}), None)


def test_empty_tensors_are_refused():
    tensors = stored({"name": "mobilefacenet", "embedding_size": 8})
    name = torch_name("mobilefacenet", "embedding.pool.conv.weight")
    tensors[name] = StoredTensor((0, 1, 2**40, 2**40), "float32", lambda: np.zeros(1))
    with pytest.raises(InterchangeError, match=f"{name}.* got the shape"):
        find_net("a.pth", tensors, None)
