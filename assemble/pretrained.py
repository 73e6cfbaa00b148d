# SPDX-License-Identifier: Apache-2.0
"""Start from a model: read the model, take over its net settings, check that its weights fit.

Only rank 0 reads the model file and keeps the weights, until the net is built.  The other ranks get
the names and shapes of the weights, for the checks, and later the weights by broadcast.
"""

from __future__ import annotations

import json
from collections.abc import Container, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from interchange.model import InterchangeError, StoredModel
from interchange.open_model import open_model
from launch.config.configuration import (
    GRAPH_NET,
    Choice,
    Config,
    ConfigError,
    read_choice,
)
from launch.ranks.agreement import Refused, agree
from nets import ALIASES, NETS, build_net
from ranges import checked_options, settings
from training.run_folder import unfinished_config

if TYPE_CHECKING:
    from mxnet import gluon

    from launch.ranks.comm import Comm

TRAINING_KEYS = ("dropout", "layer_dropout")
"""Keys of ``net`` that do not change the weights, so a run may set other values than the model."""
LONG_KEYS = ("symbol",)
"""Keys of ``net`` whose values are too long for messages."""


@dataclass(frozen=True, kw_only=True)
class Pretrained:
    """Model to start from: its settings and shapes on all ranks, its weights on rank 0 only."""

    source: str
    """Path of the file or folder that the model was read from."""
    net: Mapping[str, Any]
    """Name and arguments of the net."""
    image_size: tuple[int, int]
    """(height, width) of the images in pixels."""
    shapes: Mapping[str, list[int]]
    """Shapes of the weights of the net, by parameter name."""
    head_shapes: Mapping[str, list[int]]
    """Shapes of the parameters of the head, by name."""
    classes: Mapping[str, Any] | None = None
    """Record of the classes (pipeline/records/class_record.py); None if their number is unknown."""
    notices: tuple[str, ...] = ()
    _model: list[StoredModel] = field(default_factory=list, compare=False, repr=False)

    def take(self) -> StoredModel | None:
        """Return the model at the first call on rank 0; otherwise return None.

        This object then keeps no reference to the model, so that its memory can be freed.
        """
        return self._model.pop() if self._model else None

    def head_array(self, name: str) -> Any:
        """Return a parameter of the model's head; None on other ranks than 0, and after `take`."""
        return self._model[0].head[name] if self._model else None

    def require_image_size(self, found: tuple[int, int]) -> None:
        """Raise InterchangeError if ``found`` (height, width) is not the image size of the net."""
        if found != self.image_size:
            own, other = ("{}x{}".format(*size) for size in (self.image_size, found))
            raise InterchangeError(
                f"{self.source}: the net needs images of {own} pixels (height x width), got "
                f"records with images of {other}; align the images to {own}, or use a model "
                f"that was trained on images of {other}"
            )

    def require_fit(self, net: gluon.Block) -> None:
        """Raise InterchangeError for the first weight whose name or shape does not fit ``net``."""
        own = {n: list(p.shape) for n, p in net._collect_params_with_prefix().items()}
        for name in sorted({*own, *self.shapes}):
            expected, found = own.get(name), self.shapes.get(name)
            if expected != found:
                wanted = f"must have shape {tuple(expected)}" if expected else "is not in the net"
                got = f"shape {tuple(found)}" if found else "no such weight"
                raise InterchangeError(
                    f"{self.source}: does not fit {_listing(self.net)}: {name!r} {wanted}, got "
                    f"{got}; use the settings of net with which the model was trained"
                )


def open_pretrained(config: Config, comm: Comm) -> tuple[Config, Pretrained | None]:
    """Read the model that ``train.pretrained`` names; only rank 0 gets its weights.

    The other ranks get its net settings and the names and shapes of its weights.

    Outputs
    -------
    The configuration, completed with the net settings of the model; and the model.  The model is
    None if the configuration names none, or if an unfinished run will be resumed.  A resumed run
    does not read the model: the configuration and the checkpoint of the run contain everything.

    Raises
    ------
    Refused
        On all ranks, if the model cannot be read or contradicts the configuration.
    """
    if not config.train.pretrained:
        return config, None
    model: StoredModel | None = None

    def read() -> dict[str, Any]:
        nonlocal model
        if comm.rank:
            return {}
        run = config.run
        saved = unfinished_config(Path(run.dir), run.name) if run.resume else None
        if saved is not None:
            return {"saved_net": saved.get("net") or {}}
        model = open_model(config.train.pretrained)
        return _facts(model)

    def read_or_explain() -> dict[str, Any]:
        try:
            return read()
        except (ValueError, OSError) as error:
            return {"error": str(error)}

    facts = comm.gather_json(agree(comm, read_or_explain))[0]
    if "error" in facts:
        raise Refused(facts["error"])
    if "saved_net" in facts:
        return agree(comm, lambda: _restore_net(config, facts["saved_net"])), None
    facts["image_size"] = tuple(facts["image_size"])
    facts["notices"] = tuple(facts["notices"])
    found = Pretrained(**facts, _model=[model] if model else [])
    return agree(comm, lambda: take_net(config, found)), found


def take_net(config: Config, model: Pretrained) -> Config:
    """Return the configuration with the net of the model.

    Keys of ``net`` that the user does not set get their values from the model.

    Raises
    ------
    ConfigError
        If a value that the user sets contradicts the model.
    ValueError
        If the model has a net or a setting that this version does not know.
    """
    net = config.net
    given = {**_values_of_name(net.name, model), **net.given}
    try:
        merged = _merge(model.net, given)
    except ConfigError:
        if _is_name_of(net.name, model):
            raise
        merged = None
    except ValueError as error:
        raise InterchangeError(f"{model.source}: {error}") from None
    same_name = _is_name_of(net.name, model)
    stored = {"name": "", **(merged.defaults if merged else {}), **model.net}
    wrong = {
        key: value
        for key, value in (merged.given if merged else given).items()
        if key not in TRAINING_KEYS and stored.get(key) != value
    }
    if merged and same_name and wrong and _has_same_weights(model, merged, wrong):
        wrong = {}
    if wrong or not same_name:
        got = _listing({"name": net.name, **wrong} if net.name else wrong, wrong)
        raise ConfigError(
            f"train.pretrained: the net of {model.source} is {_listing(stored, wrong)}, got {got}; "
            f"write {_listing(stored, wrong)}, or remove these keys to use the net of the model"
        )
    assert merged is not None
    return replace(config, net=merged)


def _has_same_weights(model: Pretrained, net: Choice, changed: Mapping[str, Any]) -> bool:
    """Return whether a net with other numbers in its settings still fits the weights of the model.

    Widths of 0.12 and 0.125, for example, can give the same numbers of channels.
    """
    if not all(type(value) in (int, float) for value in changed.values()):
        return False
    built = build_net(net.name, model.image_size, **net.options)  # not initialised
    own = {name: list(p.shape) for name, p in built._collect_params_with_prefix().items()}
    return own == dict(model.shapes)


def _restore_net(config: Config, saved: Mapping[str, Any]) -> Config:
    """Return the configuration with the net settings of the run that is resumed."""
    if config.net.name not in ("", saved.get("name")):
        # A later comparison with the saved configuration refuses the new net.
        return config
    return replace(config, net=_merge(saved, config.net.given))


def _merge(stored: Mapping[str, Any], given: Mapping[str, Any]) -> Choice:
    """Return the net with the settings ``stored``, except where the user has ``given`` others."""
    name = str(stored.get("name"))
    own = {key: value for key, value in stored.items() if key != "name"}
    if name == GRAPH_NET:
        return Choice(name, {**own, **given}, {}, dict(given))
    options = checked_options("net", name, NETS, own)
    problems: list[str] = []
    choice = read_choice("net", {"name": name, **given}, NETS, problems)
    if problems:
        raise ConfigError(f"train.pretrained: the net of the model is {name!r}; {problems[0]}")
    return Choice(
        name, {**choice.defaults, **options, **choice.given}, choice.defaults, choice.given
    )


def _facts(model: StoredModel) -> dict[str, Any]:
    """Return the values of a `Pretrained` as JSON types, without the weights."""
    return {
        "source": model.source,
        "net": dict(model.net),
        "image_size": list(model.image_size),
        "shapes": {name: list(array.shape) for name, array in model.parameters.items()},
        "head_shapes": {name: list(array.shape) for name, array in model.head.items()},
        "classes": model.classes,
        "notices": list(model.notices),
    }


def _is_name_of(name: str, model: Pretrained) -> bool:
    """Return whether a name is empty, or names the net of the model directly or as an alias."""
    own = str(model.net["name"])
    return name in ("", own) or ALIASES.get(name, name) == ALIASES.get(own, own)


def _values_of_name(name: str, model: Pretrained) -> dict[str, Any]:
    """Return the defaults of the alias ``name`` that differ from those of the model's net.

    For the alias m05 and a model with the net mobilenet_v1, for example, the result is the width
    0.5.  The result is {} if ``name`` is no alias of that net.
    """
    own = str(model.net["name"])
    if not name or not _is_name_of(name, model) or NETS.get(name) is NETS.get(own):
        return {}
    usual = settings(NETS[own])
    return {
        key: each.default
        for key, each in settings(NETS[name]).items()
        if each.default != usual[key].default
    }


def _listing(net: Mapping[str, Any], named: Container[str] = ()) -> str:
    """Return the settings of a net as the text to write on the command line.

    A setting with its default value is left out unless ``named`` contains its key.
    """
    build = NETS.get(str(net.get("name")))
    usual = {key: each.default for key, each in settings(build).items()} if build else {}
    return " ".join(
        _word(key, value)
        for key, value in net.items()
        if key not in LONG_KEYS
        and key not in TRAINING_KEYS
        and (key in named or key not in usual or usual[key] != value)
    )


def _word(key: str, value: Any) -> str:
    """Return a setting as the argument net.KEY=VALUE; quotes protect a list from the shell."""
    if isinstance(value, list):
        return f"'net.{key}={json.dumps(value, separators=(',', ':'))}'"
    return f"net.{key}={str(value).lower() if isinstance(value, bool) else value}"
