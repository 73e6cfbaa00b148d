# SPDX-License-Identifier: Apache-2.0
"""Build the net, head and trainer of a rank, and the function that verifies the net."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import mxnet as mx

import normalization
import ops
from assemble.centre_shards import load_shards
from assemble.class_centres import ClassMatch, find_match, load_head
from evaluation.evaluate import evaluate_sets
from heads import build_head
from heads.shard_centres import Step
from heads.sharded import Sharding
from launch.config.configuration import ConfigError
from launch.ranks.agreement import agree
from nets import build_net
from nets.frozen_norm import fix_parameters, freeze_batch_norm, freeze_symbol
from training.layer_groups import find_group, set_lr_factors
from training.model_arrays import distributed_names
from training.run import Run, reseed
from training.step import Model, build_optimizer, collect_parameters

if TYPE_CHECKING:
    from mxnet import gluon

    from assemble.inputs import Inputs
    from assemble.pretrained import Pretrained
    from launch.config.configuration import Config
    from launch.ranks.comm import Comm
    from training.checkpoint import Checkpoint

PARAMETERS_PER_NORM = 4
"""Number of parameters of a BatchNorm layer."""
Parameters = Mapping[str, mx.gluon.Parameter]
"""Parameters by name, as `training.step.collect_parameters` returns them."""


def choose_operators(config: Config, inputs: Inputs) -> str:
    """Choose native (C++) or plain (MXNet Gluon) operators for the device of this rank.

    Return a notice for the log.
    """
    return ops.use(config.run.operators, inputs.ctx.device_type, inputs.ctx.device_id)


def make_model(config: Config, inputs: Inputs, run: Run, comm: Comm) -> tuple[Model, list[str]]:
    """Build the model of this rank, with random, pretrained or resumed weights.

    Return the model, and notices for the log.
    """
    # Print now, although the log is not open yet, because the allocation may fail.
    if inputs.memory and comm.rank == 0:
        print(inputs.memory, flush=True)
    reseed(config.run.seed, 0, 0)  # Every rank draws the same initial weights.
    net, head, notices = agree(comm, lambda: make_blocks(config, inputs, comm))
    parameters = collect_parameters(net, head)
    shared, of_shard = split_parameters(parameters, head)
    trainer = comm.trainer(shared, make_optimizer(config, shared))
    model = Model(net, head, trainer, parameters, make_shard_trainer(config, of_shard))
    centres = "" if run.checkpoint else spread_centres(config, head, inputs, comm)
    notices += agree(comm, lambda: restore(config, model, run.checkpoint, inputs, comm, centres))
    comm.broadcast(shared)
    reseed(config.run.seed, run.progress.step, comm.rank)
    return model, notices


def split_parameters(
    parameters: Parameters, head: gluon.Block
) -> tuple[dict[str, gluon.Parameter], dict[str, gluon.Parameter]]:
    """Return the parameters that are equal on all ranks, and those of the classes of this rank."""
    of_shard = {f"head.{name}": parameters[f"head.{name}"] for name in distributed_names(head)}
    return {name: p for name, p in parameters.items() if name not in of_shard}, of_shard


def make_optimizer(config: Config, parameters: Parameters) -> mx.optimizer.Optimizer:
    """Create the optimizer that the configuration describes."""
    optim = config.optim
    return build_optimizer(parameters, optim.name, optim.lr, optim.momentum, optim.weight_decay)


def make_shard_trainer(config: Config, parameters: Parameters) -> mx.gluon.Trainer | None:
    """Return a trainer for the class centres of this rank; None if they need no own trainer.

    They need none if the head is not sharded, if they are frozen, or if the head updates them
    itself.  The trainer exchanges nothing with the other ranks.
    """
    if all(parameter.grad_req == "null" for parameter in parameters.values()):
        return None
    return mx.gluon.Trainer(parameters, make_optimizer(config, parameters), kvstore=None)


def make_blocks(
    config: Config, inputs: Inputs, comm: Comm
) -> tuple[gluon.HybridBlock, gluon.HybridBlock, list[str]]:
    """Build net and head, initialise both on the device, and hybridize both with static memory.

    Return net, head, and notices for the log about frozen layers and learning rate factors.
    """
    net, notices = make_net(config, inputs.image_size)
    step = {"momentum": config.optim.momentum, "weight_decay": config.optim.weight_decay}
    head = build_head(
        config.head.name,
        inputs.num_classes,
        config.net.options["embedding_size"],
        comm.reduce,
        fused_update=step if config.optim.fused_centres else None,
        sharding=Sharding(comm, config.run.seed, Step(**step)),
        **config.head.options,
    )
    notices += set_factors(config, net, head)
    for block in (net, head):
        block.initialize(ctx=inputs.ctx)
        block.hybridize(static_alloc=True, static_shape=True)
    return net, head, notices


def make_net(config: Config, image_size: tuple[int, int]) -> tuple[gluon.HybridBlock, list[str]]:
    """Build the net, not initialised, and freeze BatchNorm layers as the configuration requests.

    The frozen layers are all BatchNorm layers, or those in groups of layers whose factor on the
    learning rate is 0.  Return the net, and notices for the log.
    """
    factors, options = config.optim.lr_factors, dict(config.net.options)

    def is_frozen(name: str) -> bool:
        group = find_group(f"net.{name}", factors)
        return config.train.freeze_batch_norm or (group is not None and factors[group] == 0)

    names: list[str] = []
    if "symbol" in options:
        options["symbol"], names = freeze_symbol(options["symbol"], is_frozen)
    net = build_net(config.net.name, image_size, **options)
    parameters = net._collect_params_with_prefix()
    fix_parameters(parameters[name] for name in names)
    count = len(names) // PARAMETERS_PER_NORM + freeze_batch_norm(net, is_frozen)
    return net, [f"BatchNorm frozen: {count} layers"] if count else []


def set_factors(config: Config, net: gluon.Block, head: gluon.Block) -> list[str]:
    """Set the factors on the learning rate; call this function before net and head are initialised.

    Return notices for the log.

    Raises
    ------
    ConfigError
        If no parameter remains to be trained.
    """
    parameters = collect_parameters(net, head)
    notice = set_lr_factors(parameters, config.optim.lr_factors)
    if all(parameter.grad_req == "null" for parameter in parameters.values()):
        raise ConfigError(
            "optim.lr_factors: must leave a parameter to train, got factors that freeze all "
            "parameters; raise one of the factors above 0"
        )
    return [notice] if notice else []


def spread_centres(config: Config, head: gluon.Block, inputs: Inputs, comm: Comm) -> str:
    """Load the class centres of the pretrained model into a sharded head, on all ranks together.

    Return a text for the log; it is empty for other heads, and for models without class centres.
    """
    pretrained = inputs.pretrained
    if pretrained is None or not distributed_names(head) or "weight" not in pretrained.head_shapes:
        return ""
    shape = pretrained.head_shapes["weight"]
    match = match_classes(config, inputs, pretrained.classes, shape[0])
    return load_shards(head, pretrained.head_array("weight"), shape, match, comm)


def match_classes(
    config: Config, inputs: Inputs, source: Mapping[str, Any] | None, rows: int
) -> ClassMatch:
    """Find the classes that the run has in common with a model; see `find_match`."""
    per_class = config.head.options.get("sub_centers", 1)
    return find_match(config.train.class_centres, inputs.classes, source, rows, per_class)


def restore(
    config: Config,
    model: Model,
    checkpoint: Checkpoint | None,
    inputs: Inputs,
    comm: Comm,
    centres: str,
) -> list[str]:
    """Load the weights of a resumed run, or else the pretrained weights, into the model.

    Only rank 0 loads pretrained weights; the other ranks get them by broadcast.  ``centres`` is the
    result of `spread_centres`.  Return notices for the log.

    Raises
    ------
    ValueError
        If ``train.pretrained`` is set, but the run has no checkpoint and the model was not read.
    CheckpointError
        If the weights of the checkpoint do not fit, or if a shard is missing or damaged.
    """
    if checkpoint:
        if checkpoint.shards:
            # Horovod: the ranks share the work of reading the contents of all shards.
            checkpoint.shards.verify(comm.rank, comm.size)
        checkpoint.load_net_parameters(model.net, inputs.ctx)
        checkpoint.load_head_parameters(model.head, inputs.ctx)
        checkpoint.load_momentum(model)
        return []
    if not config.train.pretrained:
        return []
    if inputs.pretrained is None:
        raise ValueError(
            f"run.name: the unfinished run {config.run.name!r} has ended while this process "
            "started, got no checkpoint to resume; run the same command again"
        )
    if comm.rank:
        return []
    return load_pretrained(config, model, inputs.pretrained, inputs, centres)


def load_pretrained(
    config: Config, model: Model, pretrained: Pretrained, inputs: Inputs, centres: str
) -> list[str]:
    """Load the weights of a model into the net, and its class centres into the head.

    ``centres`` is the result of `spread_centres`, which has loaded the centres of a sharded head.
    Return notices for the log.  Only rank 0 calls this function.
    """
    stored = pretrained.take()
    assert stored is not None, "only rank 0 has the model, and only until the first take()"
    for name, parameter in model.net._collect_params_with_prefix().items():
        parameter._load_init(mx.nd.array(stored.parameters[name], dtype="float32"), inputs.ctx)
    weight, match = stored.head.get("weight"), None
    if weight is not None:
        match = match_classes(config, inputs, stored.classes, len(weight))
    left_out = distributed_names(model.head) if centres else ()
    text = load_head(model.head, stored.head, match, inputs.num_classes, left_out)
    source = f"the run starts from the weights of {pretrained.source}"
    return ["; ".join(filter(None, [source, centres, text])), *pretrained.notices]


def make_verify(
    config: Config, inputs: Inputs, model: Model, comm: Comm
) -> Callable[[], dict[str, dict[str, Any]]] | None:
    """Return a function that evaluates the net on the verification sets, on all ranks together.

    Return None if the configuration names no verification sets.
    """
    if not inputs.sets:
        return None
    compiled = ops.loader_kernels()
    return partial(
        evaluate_sets,
        model.net,
        inputs.sets,
        mean=normalization.MEAN,
        std=normalization.STD,
        batch_size=config.eval.batch_size,
        ctx=inputs.ctx,
        image_size=inputs.image_size,
        rank=comm.rank,
        size=comm.size,
        gather=comm.gather,
        cut_off=compiled.is_cut_off if compiled else None,
    )
