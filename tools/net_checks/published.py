# SPDX-License-Identifier: Apache-2.0
"""Published sizes and face accuracies of networks, and what differs in our ``nets.NETS``."""

from __future__ import annotations

from dataclasses import dataclass

INSIGHTFACE = "InsightFace, arcface_mxnet at 7fadd42"
ARCFACE_TORCH = "InsightFace, arcface_torch at 7fadd42"
GLUONFR = "GluonFR 1.0.2"
GLUONCV2 = "gluoncv2 0.0.64"
NO_ACCURACY = "none published"

_BIAS = "the reference has a bias before the last batch normalisation, which cancels the bias"
_SLOPES = "our PReLU has one slope per channel, that of the reference has one per layer"
_TRUNK = (
    "our first stride is 1 instead of 2, and ours has no last pooling and no classifier; the "
    "published number of parameters includes a classifier of 1000 classes"
)


@dataclass(frozen=True)
class Published:
    """Facts about one network from its source."""

    family: str
    """Paper that describes the network."""
    source: str
    """Code whose parameters were counted, or paper that states them."""
    parameters: int
    """Number of parameters in the source."""
    macs: int | None = None
    """Number of multiply-accumulates for one image of 112x112 pixels.  If ``classifier`` is not 0:
    that of the trunk alone, for one image of 224x224 pixels.  None if the source states the number
    only for another image size."""
    classifier: int = 0
    """Number of those ``parameters`` that belong to a classifier.  0: the source has no classifier,
    and ``parameters`` includes the embedding layers."""
    accuracy: str = NO_ACCURACY
    """Face accuracy in percent, with data and source."""
    difference: str = ""
    """What differs between our network and the source."""


def _mobilefacenet(
    source: str, parameters: int, macs: int, accuracy: str = NO_ACCURACY, difference: str = ""
) -> Published:
    family = "Chen et al., MobileFaceNets, arXiv:1804.07573"
    return Published(family, source, parameters, macs, accuracy=accuracy, difference=difference)


def _iresnet(
    parameters: int, macs: int, accuracy: str = NO_ACCURACY, source: str = INSIGHTFACE
) -> Published:
    family = "Deng et al., ArcFace, arXiv:1801.07698"
    return Published(family, source, parameters, macs, accuracy=accuracy, difference=_BIAS)


def _insightface(family: str, parameters: int, macs: int, difference: str = _BIAS) -> Published:
    return Published(family, INSIGHTFACE, parameters, macs, difference=difference)


def _gluonfr(family: str, parameters: int, macs: int) -> Published:
    return Published(family, GLUONFR, parameters, macs, difference=_SLOPES)


def _trunk(
    family: str, parameters: int, classifier: int, macs: int | None, *, source: str = GLUONCV2,
    accuracy: str = NO_ACCURACY,
) -> Published:  # fmt: skip
    return Published(
        family, source, parameters, macs,
        classifier=classifier, accuracy=accuracy, difference=_TRUNK,
    )  # fmt: skip


_DENSENET = "Huang et al., DenseNet, arXiv:1608.06993"
_DENSENET_DIFFERENCE = f"{_BIAS}; our numbers of channels are multiples of 16 for oneDNN"
_SE = "Hu et al., Squeeze-and-Excitation Networks, arXiv:1709.01507"
_ATTENTION = "Wang et al., Residual Attention Network, arXiv:1704.06904"
_DPN = "Chen et al., Dual Path Networks, arXiv:1707.01629"
_VIT = "Dosovitskiy et al., ViT, arXiv:2010.11929"
_MNASNET = "Tan et al., MnasNet, arXiv:1807.11626"

PUBLISHED: dict[str, Published] = {
    "mobilefacenet": _mobilefacenet(
        INSIGHTFACE, 1_003_264, 220_965_376,
        "LFW 99.50, CFP-FP 88.94, AgeDB-30 95.91 (MS1M, InsightFace issue 214)", _BIAS,
    ),
    "mobilefacenet_y2": _mobilefacenet(INSIGHTFACE, 1_996_288, 468_825_088, difference=_BIAS),
    "mbf": _mobilefacenet(
        ARCFACE_TORCH, 2_059_520, 437_520_896, "IJB-C 93.61 at FAR 1e-4 (MS1MV2, arcface_torch)"
    ),
    "mbf_large": _mobilefacenet(ARCFACE_TORCH, 6_314_880, 1_816_482_816),
    "gluonfr_mobilefacenet": _mobilefacenet(
        GLUONFR, 1_020_372, 220_988_416,
        "LFW 99.55, CFP-FP 92.77, AgeDB-30 95.87 (MS1MV2, GluonFR, without SE)", _SLOPES,
    ),
    "iresnet18": _iresnet(24_025_600, 2_609_954_816),
    "iresnet34": _iresnet(
        34_139_328, 4_459_642_880,
        "LFW 99.65, CFP-FP 92.12, AgeDB-30 97.70 (MS1M, InsightFace model zoo)",
    ),
    "iresnet50": _iresnet(
        43_590_848, 6_309_330_944,
        "LFW 99.80, CFP-FP 92.74, AgeDB-30 97.76 (MS1M, InsightFace model zoo)",
    ),
    "iresnet100": _iresnet(
        65_156_160, 12_089_606_144,
        "LFW 99.77, CFP-FP 98.27, AgeDB-30 98.28 (MS1MV2, InsightFace model zoo)",
    ),
    "iresnet152": _iresnet(70_765_760, 12_320_817_152),
    "iresnet200": _iresnet(118_833_920, 23_418_945_536, source=ARCFACE_TORCH),
    "mobilenet_v1": _insightface(
        "Howard et al., MobileNets, arXiv:1704.04861", 3_400_960, 567_897_600
    ),
    "m05": _insightface("Howard et al., MobileNets, arXiv:1704.04861", 982_016, 149_141_248),
    "mnasnet": _insightface(_MNASNET, 3_260_556, 300_703_488, f"{_BIAS}; {_SLOPES}"),
    "mnas05": _insightface(_MNASNET, 925_400, 82_865_024, f"{_BIAS}; {_SLOPES}"),
    "mnas025": _insightface(_MNASNET, 286_782, 24_560_832, f"{_BIAS}; {_SLOPES}"),
    "densenet121": _insightface(_DENSENET, 32_639_991, 2_762_489_856, _DENSENET_DIFFERENCE),
    "densenet161": _insightface(_DENSENET, 81_860_895, 7_636_586_496, _DENSENET_DIFFERENCE),
    "densenet169": _insightface(_DENSENET, 54_228_263, 3_303_587_840, _DENSENET_DIFFERENCE),
    "densenet201": _insightface(_DENSENET, 66_259_783, 4_241_276_928, _DENSENET_DIFFERENCE),
    "vargfacenet": _insightface(
        "Yan et al., VarGFaceNet, arXiv:1910.04985", 4_957_512, 512_355_840
    ),
    "seresnet18": _gluonfr(_SE, 1_228_897, 160_109_568),
    "seresnet50": _gluonfr(_SE, 27_073_465, 3_994_361_856),
    "seresnet101": _gluonfr(_SE, 48_312_381, 7_708_811_264),
    "attention56": _gluonfr(_ATTENTION, 30_803_649, 6_212_034_560),
    "attention92": _gluonfr(_ATTENTION, 51_459_265, 10_474_987_520),
    "dpn68": _trunk(_DPN, 12_611_602, 833_000, 2_325_331_456),
    "dpn92": _trunk(_DPN, 37_800_000, 2_689_000, None, source="the paper, table 1"),
    "dpn107": _trunk(_DPN, 86_917_800, 2_689_000, 18_296_076_288),
    "dpn131": _trunk(_DPN, 79_254_504, 2_689_000, 16_010_960_896),
    "inception_resnet_v2": _trunk(
        "Szegedy et al., Inception-v4, arXiv:1602.07261", 55_843_464, 1_537_000, None
    ),
    "ghostnet": _trunk(
        "Han et al., GhostNet, arXiv:1911.11907", 5_180_840, 2_512_360, 138_252_080,
        accuracy="GhostFaceNetV1-1.3, wider and with PReLU: LFW 99.73, CFP-FP 96.83, AgeDB-30 "
        "98.00 (MS1MV3, HamadYA/GhostFaceNets)",
    ),
    "mobilenet_v3": _trunk(
        "Howard et al., MobileNetV3, arXiv:1905.02244", 5_481_752, 2_509_800, 214_080_960
    ),
    "efficientnet_b0": _trunk(
        "Tan and Le, EfficientNet, arXiv:1905.11946", 5_288_548, 1_281_000, 384_534_752
    ),
    "vit_t": Published(
        _VIT, ARCFACE_TORCH, 19_137_792, 1_504_882_688,
        accuracy="IJB-C 97.31 at FAR 1e-4 (WebFace42M, arcface_torch)",
    ),
    "vit_s": Published(
        _VIT, ARCFACE_TORCH, 76_023_296, 5_746_548_736,
        accuracy="IJB-C 97.73 at FAR 1e-4 (WebFace42M, arcface_torch)",
    ),
}  # fmt: skip
"""Mapping from the name of a network to its published facts."""
