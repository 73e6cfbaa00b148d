# SPDX-License-Identifier: Apache-2.0
"""Freeze batch normalisation: training uses stored statistics, and a fixed scale and offset.

The statistics of a frozen layer have the attribute ``lr_mult`` 0, like its gamma and beta.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from mxnet.gluon import nn

from nets.symbol_json import ATTRIBUTES, node_attributes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from mxnet import gluon


def freeze_batch_norm(net: gluon.Block, choose: Callable[[str], bool]) -> int:
    """Freeze batch normalisations of a net; return their number.

    Training then normalises with the running mean and variance and does not change them.  Gamma and
    beta get no gradient.  Call this function before the net is initialised, so that MXNet allocates
    no gradients for gamma and beta.

    Parameters
    ----------
    choose
        Function that gets the name of a layer's gamma and returns whether to freeze the layer.
    """
    names = {id(parameter): name for name, parameter in net._collect_params_with_prefix().items()}
    found: list[nn.BatchNorm] = []
    net.apply(lambda block: found.append(block) if isinstance(block, nn.BatchNorm) else None)
    chosen = [norm for norm in found if choose(names[id(norm.gamma)])]
    for norm in chosen:
        norm._kwargs["use_global_stats"] = True
        fix_parameters([norm.gamma, norm.beta, norm.running_mean, norm.running_var])
    return len(chosen)


def fix_parameters(parameters: Iterable[gluon.Parameter]) -> None:
    """Exclude parameters from training."""
    for parameter in parameters:
        parameter.lr_mult, parameter.grad_req = 0.0, "null"


def freeze_symbol(text: str, choose: Callable[[str], bool]) -> tuple[str, list[str]]:
    """Freeze batch normalisations of a symbol; return its JSON text and their parameters' names.

    The caller must build a network from this text, and call `fix_parameters` for the parameters of
    the network that have these names.

    Parameters
    ----------
    choose
        Function that gets the name of a layer's gamma and returns whether to freeze the layer.

    Outputs
    -------
    The text, and four names for each frozen layer: gamma, beta, running mean, running variance.
    """
    content = json.loads(text)
    nodes, names = content["nodes"], []
    for node in nodes:
        if node["op"] != "BatchNorm":
            continue
        own = [nodes[entry[0]]["name"] for entry in node["inputs"][1:]]
        if choose(own[0]):
            _set_attribute(node, "use_global_stats", "True")
            names += own
    return json.dumps(content), names


def _set_attribute(node: dict[str, Any], name: str, value: str) -> None:
    node["attrs"] = {**node_attributes(node), name: value}
    for key in ATTRIBUTES:
        if key != "attrs":
            node.pop(key, None)
