# SPDX-License-Identifier: Apache-2.0
"""Factors on the learning rate by layer group.

A group is the head, a block of the net such as ``embedding``, or a part of a block such as
``stages.3``.  The name of a group is a prefix of the names of its parameters, up to a dot.  The
parameters of an imported graph have names without dots, so there a prefix ends before an
underscore.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mxnet import gluon

HEAD = "head"
_MAX_LISTED = 40


def check_lr_factors(net_names: Iterable[str], factors: Mapping[str, float]) -> str:
    """Return an error message if a factor names no layer group, else "".

    Parameters
    ----------
    net_names
        Names of the parameters of the net, for example "stages.0.1.expand.conv.weight".
    factors
        Factor of each layer group.
    """
    names = list(net_names)
    unknown = [
        group for group in factors if group != HEAD and not any(_fits(n, group) for n in names)
    ]
    if not unknown:
        return ""
    return (
        f"optim.lr_factors: must name layer groups, got {', '.join(map(repr, unknown))}; the "
        f"groups of this net are {', '.join(list_groups(names))}"
    )


def list_groups(net_names: Iterable[str]) -> list[str]:
    """Return the names of the blocks of the net and of their numbered parts, and "head"."""
    groups: dict[str, None] = {}
    for name in net_names:
        first, *rest = name.split(_separator(name))
        groups[first] = None
        if rest and rest[0].isdigit():
            groups[f"{first}{_separator(name)}{rest[0]}"] = None
    listed = list(groups)
    if len(listed) > _MAX_LISTED:
        listed = [*listed[:_MAX_LISTED], f"{len(listed) - _MAX_LISTED} more"]
    return [*listed, HEAD]


def find_group(name: str, factors: Mapping[str, float]) -> str | None:
    """Return the group in ``factors`` that a parameter belongs to, or None.

    If the parameter belongs to several groups, the group with the longest name counts.

    Parameters
    ----------
    name
        Name of the parameter, "net.<name>" or "head.<name>".
    """
    part, _, rest = name.partition(".")
    if part == HEAD:
        return HEAD if HEAD in factors else None
    fitting = [group for group in factors if group != HEAD and _fits(rest, group)]
    return max(fitting, key=len) if fitting else None


def set_lr_factors(parameters: Mapping[str, gluon.Parameter], factors: Mapping[str, float]) -> str:
    """Set the factor on the learning rate of each parameter; return a notice for the log.

    A parameter with the factor 0 gets no gradient.  Call this function before the parameters are
    initialised, so that MXNet allocates no gradients for them.

    Parameters
    ----------
    parameters
        Parameters of net and head by the names "net.<name>" and "head.<name>".
    factors
        Factor of each layer group; {} changes nothing.
    """
    counts = dict.fromkeys(factors, 0)
    for name, parameter in parameters.items():
        group = find_group(name, factors)
        if group is None:
            continue
        counts[group] += 1
        if parameter.lr_mult:  # 0: a frozen layer
            parameter.lr_mult = factors[group]
        if not factors[group]:
            parameter.grad_req = "null"
    if not factors:
        return ""
    listed = [
        f"{group} {factor:g} ({_count(counts[group])}{'' if factor else ', frozen'})"
        for group, factor in factors.items()
    ]
    return f"learning rate factors: {', '.join(listed)}, other groups 1"


def _count(number: int) -> str:
    return f"{number} parameter{'' if number == 1 else 's'}"


def _fits(name: str, group: str) -> bool:
    return name == group or name.startswith(group + _separator(name))


def _separator(name: str) -> str:
    return "." if "." in name else "_"
