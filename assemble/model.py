# SPDX-License-Identifier: Apache-2.0
"""Build the net, head and trainer of a rank, and the function that verifies the net."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import normalization
import ops
from evaluation.evaluate import evaluate_sets
from heads import build_head
from launch.ranks.agreement import agree
from nets import build_net
from training.run import Run, reseed
from training.step import Model, build_optimizer, collect_parameters

if TYPE_CHECKING:
    from mxnet import gluon

    from assemble.inputs import Inputs
    from launch.config.configuration import Config
    from launch.ranks.comm import Comm
    from training.checkpoint import Checkpoint


def choose_operators(config: Config, inputs: Inputs) -> str:
    """Choose native (C++) or plain (MXNet Gluon) operators for the device of this rank.

    Return a notice for the log.
    """
    return ops.use(config.run.operators, inputs.ctx.device_type, inputs.ctx.device_id)


def make_model(config: Config, inputs: Inputs, run: Run, comm: Comm) -> tuple[Model, str]:
    """Build the model of this rank, with random, pretrained or resumed weights.

    Return the model, and a notice for the log.
    """
    reseed(config.run.seed, 0, 0)  # every rank draws the same initial weights
    net, head = agree(comm, lambda: make_blocks(config, inputs, comm))
    parameters, optim = collect_parameters(net, head), config.optim
    optimizer = build_optimizer(
        parameters, optim.name, optim.lr, optim.momentum, optim.weight_decay
    )
    model = Model(net, head, comm.trainer(parameters, optimizer), parameters)
    notice = agree(comm, lambda: restore(model, run.checkpoint, inputs))
    comm.broadcast(parameters)
    reseed(config.run.seed, run.progress.step, comm.rank)
    return model, notice


def make_blocks(
    config: Config, inputs: Inputs, comm: Comm
) -> tuple[gluon.HybridBlock, gluon.HybridBlock]:
    """Build net and head, initialise both on the device, and hybridize both with static memory."""
    net = build_net(config.net.name, inputs.image_size, **config.net.options)
    step = {"momentum": config.optim.momentum, "weight_decay": config.optim.weight_decay}
    head = build_head(
        config.head.name,
        inputs.num_classes,
        config.net.options["embedding_size"],
        comm.reduce,
        fused_update=step if config.optim.fused_centres else None,
        **config.head.options,
    )
    for block in (net, head):
        block.initialize(ctx=inputs.ctx)
        block.hybridize(static_alloc=True, static_shape=True)
    return net, head


def restore(model: Model, checkpoint: Checkpoint | None, inputs: Inputs) -> str:
    """Load the weights of a resumed run, or else the pretrained weights, into the model.

    Return a notice for the log, or "" if there is nothing to report.
    """
    if checkpoint:
        checkpoint.load_net_parameters(model.net, inputs.ctx)
        checkpoint.load_head_parameters(model.head, inputs.ctx)
        checkpoint.load_momentum(model)
    elif inputs.pretrained:
        inputs.pretrained.load_net_parameters(model.net, inputs.ctx)
        loaded = inputs.pretrained.load_matching_parameters(model.head, inputs.ctx)
        missing = sorted({*model.head._collect_params_with_prefix()} - {*loaded})
        new = f"; initialised randomly: {', '.join(missing)} (head)" if missing else ""
        damaged = "".join(f"; skipped: {text}" for text in inputs.pretrained.damaged)
        return f"the run starts from the weights of {inputs.pretrained.folder}{new}{damaged}"
    return ""


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
