# SPDX-License-Identifier: Apache-2.0
"""Suggestions for misspelt names and for names of other projects."""

from __future__ import annotations

import numpy as np
import pytest

from aliases import ALIASES
from heads import HEADS
from launch.config.configuration import Config
from nets import NETS
from ranges import settings
from suggestions import MAX_EDITS, count_edits, listed, question, suggest


@pytest.mark.parametrize(
    ("word", "name"),
    [
        *((word, "cosface") for word in ("amsoftmax", "am_softmax", "AM-Softmax", "CosLoss")),
        *((word, "arcface") for word in ("arcloss", "ArcFace", "arc_face", "aam-softmax")),
        *((word, "arcface") for word in ("arcfase", "acrface", "arcfac", "ArcMargin")),
        *((word, "normface") for word in ("nsoftmax", "norm_softmax")),
        *((word, "combined") for word in ("Combined", "margin_softmax", "CombinedMarginLoss")),
        *((word, "a_softmax") for word in ("asoftmax", "angular_softmax", "A-Softmax")),
        *((word, "sv_softmax") for word in ("svxsoftmax", "SVX_Softmax", "mv_softmax")),
        *((word, "center") for word in ("centerloss", "center_loss", "centre")),
        *((word, "l2_softmax") for word in ("l2softmax", "L2Softmax")),
        *((word, "sub_center_arcface") for word in ("SubCenterArcFace", "subcenter")),
        *((word, "angular_triplet") for word in ("atriplet", "angular_triplets")),
        ("triplet_loss", "triplet"),
        ("npairs", "n_pair"),
        ("cross_entropy", "softmax"),
        ("ring_loss", "ring"),
        ("GitLoss", "git"),
        ("lgmloss", "lgm"),
        ("docface", "mps"),
    ],
)
def test_names_of_losses_in_other_projects_lead_to_ours(word, name):
    assert suggest(word, HEADS) == [name]


@pytest.mark.parametrize(
    ("word", "names"),
    [
        *((word, ["mobilefacenet"]) for word in ("mfn", "MobileFaceNet", "mobilefacent")),
        *((word, [word]) for word in ("y1", "y2", "mbf", "m05", "mnas025", "r50", "d169")),
        ("get_mbf_large", ["mbf_large"]),
        ("l_se_resnet50v2", ["seresnet50"]),
        ("attentionfacenet92", ["attention92"]),
        *(
            (f"{kind}{n}", [f"iresnet{n}"])
            for kind in ("ir_", "resnet", "IR", "ir_se_")
            for n in (18, 50)
        ),
        ("LResNet100E-IR", ["iresnet100"]),
        ("iresnet", [f"iresnet{depth}" for depth in (18, 34, 50, 100, 152, 200)]),
        *((word, ["mobilenet_v1"]) for word in ("mobilenet", "fmobilenet", "MobileNetV1")),
        *((word, ["iresnet50"]) for word in ("irestnet50", "iresnet51", "iresnet5", "irsenet50")),
        *((word, ["mobilenet_v3"]) for word in ("MobileNetV3", "mobilenet_v3_small")),
        *((word, ["efficientnet_b0"]) for word in ("efficientnet", "EfficientNet-B0")),
        *((word, ["ghostnet"]) for word in ("GhostFaceNet", "ghostnt")),
        ("vit_t_dp005_mask0", ["vit_t"]),
        ("inceptionresnetv2", ["inception_resnet_v2"]),
        ("dpn", ["dpn68", "dpn92", "dpn107", "dpn131"]),
        *((word, []) for word in ("resnext50", "mobilenet_v2", "r2060", "m2")),
        *((word, []) for word in ("efficientnet_b3", "vit_b", "vit_l_dp005_mask_005", "dpn98")),
    ],
)
def test_names_of_networks_in_other_projects_lead_to_ours_or_nowhere(word, names):
    assert suggest(word, NETS) == names


@pytest.mark.parametrize("word", ["lsoftmax", "L-Softmax", "npcface", "sphereface2", "airface"])
def test_a_loss_that_is_missing_suggests_no_other_loss(word):
    assert suggest(word, HEADS) == []


@pytest.mark.parametrize(
    ("head", "key", "names"),
    [
        ("arcface", "margin", ["m2"]),
        ("cosface", "margin", ["m3"]),
        ("combined", "margin", ["m2", "m3", "m1"]),
        ("adaface", "margin", ["m"]),
        ("triplet", "margn", ["margin"]),
        ("arcface", "s", ["scale"]),
        ("arcface", "loss_s", ["scale"]),
        ("combined", "margin_b", ["m3"]),
        ("cosface", "m2", []),
        ("arcface", "easy", []),
        ("contrastive", "scale", []),
    ],
)
def test_keys_of_heads(head, key, names):
    assert suggest(key, settings(HEADS[head])) == names


def test_a_suggestion_is_at_most_two_edits_away_or_in_the_table():
    generator = np.random.default_rng(0)
    letters = list("abcdefghijklmnopqrstuvwxyz_0123456789")
    sections = list(Config.__dataclass_fields__)
    found = 0
    for known in (list(HEADS), list(NETS), sections, list(settings(HEADS["combined"]))):
        for _ in range(300):
            word = list(known[generator.integers(len(known))])
            for _ in range(generator.integers(1, 6)):
                word[generator.integers(len(word))] = str(generator.choice(letters))
            text = "".join(word)
            names = [name for name in known if name != text]
            for name in suggest(text, names):
                found += 1
                plain = text.replace("_", "")
                other = plain == name.replace("_", "") or plain.removesuffix("loss") in ALIASES
                assert count_edits(text, name) <= MAX_EDITS or other
    assert found > 100


@pytest.mark.parametrize(
    ("one", "two", "edits"),
    [("", "", 0), ("", "ab", 2), ("kitten", "sitting", 3), ("widht", "width", 2), ("a", "a", 0)],
)
def test_edits_are_counted(one, two, edits):
    assert count_edits(one, two) == count_edits(two, one) == edits


def test_short_words_need_more_letters_in_common():
    assert suggest("x", ["m2", "lr"]) == []
    assert suggest("lrr", ["lr", "decay"]) == ["lr"]
    assert suggest("dtaa", ["data", "eval"]) == ["data"]
    assert suggest("sets", ["seed"]) == []
    assert suggest(None, ["none_"]) == ["none_"]
    assert suggest("loss", ["ring", "git"]) == []


def test_a_question_names_all_suggestions():
    assert suggest("abcde", ["abcd", "xyz", "abcdf"]) == ["abcd", "abcdf"]
    assert question(["a", "b"]) == "did you mean 'a' or 'b'?"
    assert question(["a", "b", "c"]) == "did you mean 'a', 'b' or 'c'?"
    assert question(["a"]) == "did you mean 'a'?" and question([]) == ""
    assert listed("abx", ["abc", "xyz"]) == "did you mean 'abc'? known: abc, xyz"
    assert listed("q", []) == "known: none"
