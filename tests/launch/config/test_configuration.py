# SPDX-License-Identifier: Apache-2.0
"""The configuration: values, defaults, and the message of every problem."""

from __future__ import annotations

import os
from typing import Annotated

import pytest
import yaml

from launch.config.configuration import Choice, ConfigError, build_config, differences
from launch.config.paths import PATH_KEYS
from ranges import Within, above

Width = Annotated[float, Within(0, 8, "1.0 is usual", open_low=True)]


def small(*, width: Width = 1.0, embedding_size: int = 128):
    """A net."""


class Arc:
    """A head."""

    def __init__(
        self,
        num_classes,
        embedding_size,
        *,
        m2: float = 0.5,
        scale: Annotated[float, above(0, "30 to 64 is usual")] = 64.0,
        easy: bool = False,
    ):
        pass

    @staticmethod
    def problems(options):
        if options["easy"] and options["m2"] > 1:
            yield "easy", f"goes with head.m2 up to 1, got {options['m2']}; set it to false"


NETS = {"small": small}
HEADS = {"arc": Arc}
GOOD = {
    "data": {"loader": "synthetic", "num_classes": 10},
    "net": {"name": "small"},
    "head": {"name": "arc"},
    "train": {"max_steps": 5},
}


def build(**sections):
    raw = {name: {**values, **sections.pop(name, {})} for name, values in GOOD.items()}
    return build_config({**raw, **sections}, NETS, HEADS, where="test.yaml")


def problems(**sections) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        build(**sections)
    first, *rest = str(caught.value).splitlines()
    assert first == f"test.yaml: {len(rest)} problem{'s' if len(rest) > 1 else ''}"
    return [line.removeprefix("  ") for line in rest]


def test_defaults_and_builder_options():
    config = build(net={"width": 2}, head={"scale": 32.0})
    assert config.optim.lr == 0.1 and config.data.batch_size == 128
    assert config.net == Choice("small", {"width": 2.0, "embedding_size": 128})
    assert isinstance(config.net.options["width"], float)
    assert config.head == Choice("arc", {"m2": 0.5, "scale": 32.0, "easy": False})
    plain = config.to_dict()
    assert plain["head"] == {"name": "arc", "m2": 0.5, "scale": 32.0, "easy": False}
    assert plain["optim"]["warmup"] == "0"


def test_a_saved_configuration_loads_unchanged():
    config = build(
        optim={
            "milestones": ["51200000 images", "70400000 images"],
            "warmup": "2.5 epochs",
            "weight_decay": 1e-5,
        },
        train={"epochs": 3, "margin_warmup": "0.001 %"},
    )
    text = yaml.safe_dump(config.to_dict())
    assert build_config(yaml.safe_load(text), NETS, HEADS) == config


@pytest.mark.parametrize(
    ("sections", "sentence"),
    [
        ({"data": {"batchsize": 8}}, "data.batchsize: unknown key; did you mean 'batch_size'?"),
        ({"trian": {}}, "trian: unknown section; did you mean 'train'?"),
        (
            {"xyz": {}},
            "xyz: unknown section; known: run, data, net, head, optim, train, eval",
        ),
        ({"optim": 3}, "optim: expected a section with lines of the form `key: value`, got 3"),
        (
            {"data": {"batch_size": "many"}},
            "data.batch_size: must be a whole number from 1 up to 1048576, got 'many'",
        ),
        (
            {"data": {"batch_size": 1.5}},
            "data.batch_size: must be a whole number from 1 up to 1048576, got 1.5",
        ),
        (
            {"data": {"batch_size": True}},
            "data.batch_size: must be a whole number from 1 up to 1048576, got True",
        ),
        ({"data": {"mirror": 1}}, "data.mirror: must be true or false, got 1"),
        ({"optim": {"lr": True}}, "optim.lr: must be a number above 0, got True"),
        ({"optim": {"lr": None}}, "optim.lr: must be a number above 0, got None"),
        (
            {"optim": {"weight_decay": "-5e-4"}},
            "optim.weight_decay: must be a number from 0, got -0.0005",
        ),
        (
            {"data": {"loader": "dalli"}},
            "data.loader: must be one of 'dali', 'cpu', 'synthetic', got 'dalli'; did you mean "
            "'dali'?",
        ),
        (
            {"optim": {"warmup": "5 batches"}},
            "optim.warmup: expected a duration like '51200000 images', '100000 steps', "
            "'2.5 epochs' or '10 %', got '5 batches'",
        ),
        (
            {"optim": {"milestones": ["2 epochs", 7]}},
            "optim.milestones[1]: expected a duration like '51200000 images', '100000 steps', "
            "'2.5 epochs' or '10 %', got 7",
        ),
        (
            {"net": {"name": "smal"}},
            "net.name: must be one of the known names, got 'smal'; did you mean 'small'?",
        ),
        (
            {"net": {"name": ["a", 3]}},
            "net.name: must be one of the known names, got ['a', 3]; known: small",
        ),
        (
            {"net": {"name": None}},
            "net.name: required, got none; use one of small, or set train.pretrained to use the "
            "net of a model",
        ),
        (
            {"optim": {"lr_factors": {"stem": -1}}},
            "optim.lr_factors.stem: must be a number from 0, got -1.0; 0 freezes the group",
        ),
        (
            {"optim": {"lr_factors": {"head:10": None}}},
            "optim.lr_factors: each name needs a value, got only 'head:10'; write a blank after "
            "the colon, as in {head: 10}",
        ),
        (
            {"optim": {"lr_factors": {3: 0.1}}},
            "optim.lr_factors: each name must be text, got 3; write it in quotes",
        ),
        (
            {"optim": {"lr_factors": "stem"}},
            "optim.lr_factors: must be a mapping from names, each value a number from 0, got "
            "'stem'",
        ),
        (
            {"train": {"freeze_batch_norm": True}},
            "train.freeze_batch_norm: must keep its default if train.pretrained is not set, got "
            "True; set train.pretrained to a model, or remove train.freeze_batch_norm",
        ),
        (
            {"net": {"width": 0}},
            "net.width: must be a number above 0 up to 8, got 0.0; 1.0 is usual",
        ),
        (
            {"head": {"scale": -1}},
            "head.scale: must be a number above 0, got -1.0; 30 to 64 is usual",
        ),
        (
            {"head": {"m2": 1.5, "easy": True}},
            "head.easy: goes with head.m2 up to 1, got 1.5; set it to false",
        ),
        (
            {"data": {"images_per_person": -1}},
            "data.images_per_person: must be a whole number from 0 up to 1048576, got -1; 4 is "
            "usual",
        ),
        ({"head": {"scal": 1.0}}, "head.scal: unknown key for 'arc'; did you mean 'scale'?"),
        (
            {"head": {"num_classes": 5}},
            "head.num_classes: unknown key for 'arc'; known: m2, scale, easy",
        ),
        ({"head": {"m2": "half"}}, "head.m2: must be a number, got 'half'"),
        (
            {"train": {"max_steps": 0}},
            "train.epochs: epochs, max_images or max_steps must be above 0, got 0 for all; set one "
            "of them",
        ),
        (
            {"data": {"loader": "dali"}},
            "data.records: required, got none; set data.records=FOLDER or the environment variable "
            "FACES_DIR=FOLDER, where FOLDER contains train.rec, train.idx and property, or put "
            "these files into ~/.mxnet/datasets/face/emore or ms1m",
        ),
        (
            {"data": {"batch_size": 0}},
            "data.batch_size: must be a whole number from 1 up to 1048576, got 0",
        ),
        (
            {"data": {"records": ["a", "b"], "num_classes": 5}},
            "data.num_classes: must be 0 for several record sets, got 5 for 2 sets; write the "
            "number of classes into the property file of each set",
        ),
        (
            {"data": {"reader": "window", "decode": "cpu", "on_bad_image": "skip"}},
            "data.on_bad_image: 'skip' cannot replace images that DALI reads, got "
            "data.reader=window and data.decode=cpu; use data.reader=random or blocks, "
            "data.decode=native, or data.on_bad_image=stop",
        ),
        (
            {"data": {"records": ["a", "b"], "num_classes": 0, "reader": "window"}},
            "data.reader: 'window' reads one record set, got 2; merge the sets with "
            "`python -m tools.data shuffle`, or use data.reader=random",
        ),
        (
            {"data": {"color_jitter": 1.0}},
            "data.color_jitter: must be a number from 0 to below 1, got 1.0",
        ),
        *(
            (
                {"data": {"jpeg_quality": value}},
                f"data.jpeg_quality: must be [lowest, highest], both from 1 to 100, got "
                f"{value}; for example, write [2, 20]",
            )
            for value in ([20, 2], [50], [1, 2, 3])
        ),
        *(
            (
                {"data": {"jpeg_quality": [value, 50]}},
                f"data.jpeg_quality[0]: must be a whole number from 1 up to 100, got {value}",
            )
            for value in (0, 101, 2.5)
        ),
        (
            {"data": {"cut_out_probability": 1.5}},
            "data.cut_out_probability: must be a number from 0 up to 1, got 1.5",
        ),
        *(
            (
                {"data": {"loader": "dali", "records": ["a"], "batch_size": 30, **data}},
                f"data.{sentence}",
            )
            for data, sentence in (
                (
                    {"images_per_person": 1},
                    "images_per_person: must be 0 (off) or at least 2, got 1; 4 images per person "
                    "is usual",
                ),
                (
                    {"images_per_person": 4},
                    "images_per_person: must divide data.batch_size, got 4 and 30; use a "
                    "data.batch_size of 32",
                ),
                (
                    {"images_per_person": 5, "reader": "blocks"},
                    "images_per_person: requires data.reader=random, got blocks; use "
                    "data.reader=random",
                ),
                (
                    {"images_per_person": 5, "loader": "synthetic"},
                    "images_per_person: requires record files, got 5 with data.loader=synthetic; "
                    "set data.images_per_person=0",
                ),
                (
                    {"bag": 60},
                    "bag: requires data.images_per_person above 0, got 0; set it to 5, for "
                    "example",
                ),
                (
                    {"images_per_person": 5, "bag": 100},
                    "bag: must be a multiple of data.batch_size, got 100 and 30; use a data.bag "
                    "of 90",
                ),
                (
                    {"images_per_person": 5, "bag": 100, "batch_size": 10},
                    "bag: requires a data.batch_size that is a multiple of 3, got 10; use 30 or "
                    "another multiple of 3",
                ),
            )
        ),
        (
            {"data": {"images_filter": -1}},
            "data.images_filter: must be a whole number from 0 up to 2147483647, got -1",
        ),
        ({"optim": {"lr": 0}}, "optim.lr: must be a number above 0, got 0.0"),
        (
            {"optim": {"momentum": 1.0}},
            "optim.momentum: must be a number from 0 to below 1, got 1.0",
        ),
        ({"run": {"seed": -1}}, "run.seed: must be a whole number from 0 up to 2147483647, got -1"),
        (
            {"run": {"name": "a/b"}},
            "run.name: must be a plain folder name, got 'a/b'; use run.dir for the path",
        ),
        (
            {"optim": {"schedule": "cosine", "milestones": ["1 epoch"]}},
            "optim.milestones: require optim.schedule=step, got 'cosine'; remove the milestones",
        ),
    ],
)
def test_a_problem_has_one_message(sections, sentence):
    assert problems(**sections) == [sentence]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_infinite_numbers_are_refused(value):
    assert problems(optim={"lr": value}, head={"scale": value}) == [
        f"head.scale: must be a number above 0, got {value}; 30 to 64 is usual",
        f"optim.lr: must be a number above 0, got {value}",
    ]


def test_problems_of_net_and_head_are_listed_with_all_others():
    found = problems(data={"batch_size": 0}, net={"width": 99}, head={"scale": -1})
    assert [text.split(":")[0] for text in found] == ["data.batch_size", "net.width", "head.scale"]


def test_all_problems_are_reported_together():
    found = problems(
        data={"batchsize": 8, "window": 2.5},
        trian={},
        head={"m9": 0.1},
        optim={"lr": "1-1"},
        train={"max_steps": 0},
    )
    assert [text.split(":")[0] for text in found] == [
        "trian",
        "data.batchsize",
        "data.window",
        "head.m9",
        "optim.lr",
        "train.epochs",
    ]


def test_environment_variables_are_expanded(monkeypatch):
    monkeypatch.setenv("FACES", "/faces")
    monkeypatch.delenv("NO_SUCH_FOLDER", raising=False)
    config = build(data={"records": "${FACES}/ms1m"}, eval={"sets": "${FACES}/lfw.bin"})
    assert config.data.records == ["/faces/ms1m"]
    assert config.eval.sets == ["/faces/lfw.bin"]
    assert problems(data={"records": "${NO_SUCH_FOLDER}/x"}) == [
        "data.records: the environment variable NO_SUCH_FOLDER is not set, got "
        "'${NO_SUCH_FOLDER}/x'; set it in the command: NO_SUCH_FOLDER=... horovodrun ..."
    ]


def test_home_folders_are_expanded_in_path_keys(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setenv("FACES", "~/faces")
    config = build(
        run={"dir": "~/runs", "name": "~x"},
        data={"num_classes": 0, "records": ["~/ms1m", "~root/x", "${FACES}/y", "./~z"]},
        eval={"sets": "~/lfw.bin"},
        train={"pretrained": "~/runs/a-001"},
    )
    assert config.run.dir == "/home/me/runs" and config.run.name == "~x"
    root = os.path.expanduser("~root")
    assert config.data.records == ["/home/me/ms1m", f"{root}/x", "/home/me/faces/y", "./~z"]
    assert config.eval.sets == ["/home/me/lfw.bin"]
    assert config.train.pretrained == "/home/me/runs/a-001"
    assert build(data={"records": "~"}).data.records == ["/home/me"]


def test_every_unknown_home_folder_is_reported():
    nobody = "~no-such-user-at-all/x"
    found = problems(
        run={"dir": nobody},
        data={"records": ["a", nobody]},
        eval={"sets": nobody},
        train={"pretrained": nobody},
    )
    assert found == [
        f"{key}: the home folder of ~no-such-user-at-all cannot be found, got '{nobody}'; write "
        f"an absolute path, or ./{nobody} for a folder of that name"
        for key in ("run.dir", "data.records[1]", "train.pretrained", "eval.sets")
    ]


def test_path_keys_exist():
    sections = build().to_dict()
    for key in PATH_KEYS:
        section, name = key.split(".")
        assert name in sections[section]


def test_differences_that_prevent_a_run_from_resuming():
    old = build(optim={"warmup": "5 %"}).to_dict()
    new = build(
        run={"dir": "elsewhere", "name": "other"},
        data={"threads": 3, "workers": 2, "prefetch": 7},
        train={"log_every": 7},
    ).to_dict()
    assert differences(old, old) == []
    assert differences(old, new) == ["optim.warmup: '5 %' -> '0'"]
    changed = build(head={"m2": 0.3}, run={"seed": 2}, optim={"warmup": "5 %"}).to_dict()
    assert differences(old, changed) == ["head.m2: 0.5 -> 0.3", "run.seed: 1 -> 2"]


def test_a_key_missing_in_the_saved_configuration_has_its_default():
    config = build(head={"m2": 0.3})
    new = config.to_dict()
    old = {name: dict(values) for name, values in new.items() if name != "eval"}
    del old["head"]["easy"], old["data"]["labels"]
    assert differences(old, new, config.defaults()) == []
    changed = build(head={"m2": 0.3, "easy": True}, data={"labels": "shared"}).to_dict()
    assert differences(old, changed, config.defaults()) == [
        "data.labels: 'stacked' -> 'shared'",
        "head.easy: False -> True",
    ]
    old["head"]["older"] = 1  # a key that this version does not have
    assert differences(old, new, config.defaults()) == ["head.older: 1 -> None"]
    assert config.defaults()["head"] == {"name": "arc", "m2": 0.5, "scale": 64.0, "easy": False}


def test_a_difference_of_one_image_is_detected():
    old, new = (
        build(optim={"milestones": [f"{images} images"]}).to_dict()
        for images in (51200000, 51200001)
    )
    assert differences(old, new) == ["optim.milestones: ['51200000 images'] -> ['51200001 images']"]


def test_a_configuration_without_sections_is_refused():
    with pytest.raises(ConfigError, match=r"^config: expected sections \(run, data, net"):
        build_config(["data"], NETS, HEADS)


@pytest.mark.parametrize(
    "override",
    [
        *("data.block", "data.window", "data.num_classes", "data.batch_size", "data.prefetch"),
        *("data.threads", "data.workers", "data.cut_out", "data.shift", "data.bag"),
        *("data.images_per_person", "data.images_filter", "eval.batch_size"),
        *("train.max_images", "train.log_every", "train.checkpoint_every"),
    ],
)
def test_a_number_that_would_fill_the_memory_is_refused(override):
    section, key = override.split(".")
    raw = {"net": {"name": "small"}, "head": {"name": "arc"}, "train": {"epochs": 1}}
    raw["data"] = {"loader": "synthetic", "num_classes": 10}
    for value in (10**16, 10**40):
        changed = {**raw, section: {**raw.get(section, {}), key: value}}
        with pytest.raises(
            ConfigError, match=f"{override}: must be a whole number .*, got {value}"
        ):
            build_config(changed, NETS, HEADS)


def test_one_message_is_bounded():
    raw = {"net": {"name": "small"}, "head": {"name": "arc"}, "train": {"epochs": 1}}
    raw["data"] = {f"k{i}" + "x" * 5000: 1 for i in range(100)}
    with pytest.raises(ConfigError) as caught:
        build_config(raw, NETS, HEADS)
    assert len(str(caught.value)) < 40_000 and str(caught.value).endswith(" more")


def test_factors_are_a_mapping_of_numbers():
    config = build(optim={"lr_factors": {"stem": 1, "stages.3": 0.5}})
    assert config.optim.lr_factors == {"stem": 1.0, "stages.3": 0.5}
    assert isinstance(config.optim.lr_factors["stem"], float)
    plain = config.to_dict()
    assert (
        yaml.safe_load(yaml.safe_dump(plain))["optim"]["lr_factors"] == plain["optim"]["lr_factors"]
    )
    other = build(optim={"lr_factors": {"stem": 1}}).to_dict()
    assert [line.split(":")[0] for line in differences(plain, other)] == ["optim.lr_factors"]


def test_the_net_may_be_that_of_the_pretrained_model():
    raw = {name: values for name, values in GOOD.items() if name != "net"}
    raw["train"] = {**GOOD["train"], "pretrained": "model"}
    for net in ({}, {"net": None}, {"net": {"name": ""}}):
        assert build_config({**raw, **net}, NETS, HEADS).net == Choice("", {})
    config = build_config({**raw, "net": {"width": 2}}, NETS, HEADS)
    assert config.net.given == {"width": 2}


def test_long_values_are_shortened_in_differences():
    (line,) = differences({"net": {"symbol": "a" * 5000}}, {"net": {"symbol": "b" * 5000}})
    assert len(line) < 500 and line.startswith("net.symbol: 'aaa")
