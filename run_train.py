# SPDX-License-Identifier: Apache-2.0
"""Train a face-recognition network from record files and verify it.

One rank:       python run_train.py --cfg demo.yaml
Several ranks:  horovodrun -np 8 python run_train.py --cfg mbf_arcface.yaml data.records=FOLDER

The composition root: configuration -> loader, net, head, trainer -> loop.  The only place that
sees the whole configuration.
"""

from __future__ import annotations

from launch.ranks.lifeline import tie_forks
from launch.ranks.malloc import keep_memory
from launch.ranks.output import attach
from launch.ranks.threads import share_cores

OUTPUT = None
if __name__ == "__main__":  # first of all: the rest takes seconds, and the launcher may end in them
    OUTPUT = attach()
    tie_forks()
THREADS = share_cores()  # before mxnet is imported, which reads OMP_NUM_THREADS
keep_memory()  # before there are threads

import os
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import mxnet as mx

import ops
import pipeline.decode.dali  # noqa: F401  before Horovod is loaded: pipeline/decode/dali.py says why
from evaluation.evaluate import evaluate_sets, find_sets
from evaluation.pairs import Pairs, read_pairs
from evaluation.set_check import check_sets
from heads import HEADS, build_head
from heads.metric import check_batches
from launch.config import Config, ConfigError, differences, information, load_config
from launch.environment.gpu import choose_device
from launch.environment.provenance import commit, versions
from launch.ranks.agreement import Refused, agree, gather_notices, require_equal
from launch.ranks.comm import Comm, NoConnection, connect
from nets import NETS, build_net, check_image_size
from pipeline.decode.autotune import choose_decode_path
from pipeline.decode.cache import DecodedCache, remove_left_caches
from pipeline.decode.dali import jpeg_hardware_notice
from pipeline.loader import SYNTHETIC_STEPS, Share, build_loader
from pipeline.records import mapped
from pipeline.records.open import RecordSet, open_records
from pipeline.sampling.augmentation import Augmentation
from pipeline.sampling.batches import epoch_images
from pipeline.sampling.permutations import Position
from training import schedule
from training.bag import Bags
from training.checkpoint import Checkpoint, open_checkpoint, save_checkpoint
from training.faults import Stopped, TrainingError
from training.log import RunLog, fail
from training.loop import Loop, Progress, reseed
from training.report import announce, finish
from training.run_folder import Run, choose_run, write_classes, write_config
from training.step import build_optimizer, collect_parameters


@dataclass(frozen=True)
class Inputs:
    """What a run reads, opened and checked."""

    ctx: mx.Context
    records: RecordSet | None
    sets: dict[str, Pairs]
    pretrained: Checkpoint | None
    num_classes: int
    image_size: tuple[int, int]
    epoch_images: int
    notices: tuple[str, ...] = ()
    """On the device of this rank."""


def main(argv: Sequence[str]) -> int:
    """Run the command line; return 0, 1 (training failed), 2 (usage or data) or 143 (stopped)."""
    try:
        comm = connect()
    except NoConnection as error:
        # Horovod: the launcher kills the others when one leaves with a code, so one of each host
        # goes first: it may be the name of one host alone.
        if int(os.environ.get("HOROVOD_LOCAL_RANK", "0")) == 0:
            fail(str(error))
        else:
            time.sleep(2)
        return 2
    code, sentence = 0, ""
    try:
        with ExitStack() as at_end:
            train(argv, comm, at_end)
    except Refused as error:
        code, sentence = 2, str(error)
    except TrainingError as error:
        code, sentence = 2 if error.usage else 1, str(error)
    except Stopped as error:
        code, sentence = 143, str(error)
    if sentence and comm.rank == 0:
        fail(sentence)
    # Horovod: the launcher kills the others when one leaves with a code, so rank 0 speaks first.
    comm.gather_json("done")
    comm.close()
    return code


def train(argv: Sequence[str], comm: Comm, at_end: ExitStack) -> None:
    """Compose the parts and run them; every fault is raised on all ranks alike.

    What must be closed however it ends is given to ``at_end``.
    """
    if text := agree(comm, lambda: information(argv, NETS, HEADS)):
        if comm.rank == 0:
            print(text, flush=True)
        return
    config = agree(comm, lambda: load_config(argv, NETS, HEADS))
    plain = config.to_dict()
    mapped.guard_with(ops.guard())
    inputs = agree(comm, lambda: open_inputs(config, comm))
    require_equal(comm, plain, "configuration")
    data = data_fingerprint(inputs)
    require_equal(comm, {**of_this_rank(inputs), **data}, "data")
    free_memory(config, inputs, comm)
    whole = config.data.batch_size * comm.size

    folder, checkpoint, run = choose_folder(config, plain, inputs, data, comm)
    if run:
        at_end.callback(run.lock.release)
    if OUTPUT and folder.is_dir():  # Horovod: another host may not have the folder
        OUTPUT.keep_in(folder)
    state = checkpoint.state if checkpoint else {}
    progress = Progress(**state.get("progress", {}))
    # Kept from the first start on: with another number of ranks an epoch drops another tail.
    epoch_images = state.get("epoch_images", inputs.epoch_images)
    end_images = state.get("end_images") or run_images(config, epoch_images, whole)
    device = inputs.ctx.device_type, inputs.ctx.device_id
    operators = agree(comm, lambda: ops.use(config.run.operators, *device))
    # The loader first: its worker processes fork before MXNet has threads.
    loader, decode, told = agree(comm, lambda: make_loader(config, inputs, comm, progress, folder))
    at_end.callback(loader.close)

    reseed(config.run.seed, 0, 0)  # the same initial weights on every rank
    net, head = agree(comm, lambda: make_blocks(config, inputs, comm))
    parameters = collect_parameters(net, head)
    optimizer = build_optimizer(
        parameters,
        config.optim.name,
        config.optim.lr,
        config.optim.momentum,
        config.optim.weight_decay,
    )
    trainer = comm.trainer(parameters, optimizer)
    begun = agree(comm, lambda: restore(checkpoint, inputs, net, head, trainer, parameters))
    comm.broadcast(parameters)
    reseed(config.run.seed, progress.step, comm.rank)

    log = agree(comm, lambda: RunLog(folder if comm.rank == 0 else None, progress.step))
    if config.data.bag:
        loader = Bags(
            loader,
            net,
            comm,
            config.data.bag,
            config.data.batch_size,
            alpha=config.head.options["margin"],
            angular=config.head.name == "angular_triplet",
            seed=config.run.seed,
            begin=Position(progress.epoch, progress.consumed),
            say=log.say,
        )
    notices = gather_notices(comm, inputs.notices)
    notices += inputs.records.notices if inputs.records else ()
    announce(
        log,
        folder,
        progress,
        {"ranks": comm.size, "device": inputs.ctx, "threads": THREADS},
        {
            "data": ", ".join(config.data.records) or "synthetic",
            "images": len(inputs.records) if inputs.records else 0,
            "people": inputs.num_classes,
            "loader": f"{config.data.loader}/{config.data.reader}",
            "batch": f"{config.data.batch_size} x {comm.size} = {whole}",
        },
        [*(run.notices if run else ()), *notices, operators, *told, begun, comm.notice(inputs.ctx)],
    )
    depends_on = {**versions(), "decode": decode}
    meta = {
        "net": plain["net"],
        "head": plain["head"],
        "num_classes": inputs.num_classes,
        "image_size": list(inputs.image_size),
    }

    def save() -> None:
        state = {
            "progress": asdict(progress),
            "epoch_images": epoch_images,
            "end_images": end_images,
            "ranks": comm.size,
            "data": data,
            "meta": meta,
        }
        save_checkpoint(
            folder / "checkpoints",
            progress.step,
            net,
            head,
            trainer,
            parameters,
            state,
            config.train.keep_checkpoints,
        )

    compiled = ops.loader_kernels()
    verify = partial(
        evaluate_sets,
        net,
        inputs.sets,
        config.eval.batch_size,
        inputs.ctx,
        image_size=inputs.image_size,
        rank=comm.rank,
        size=comm.size,
        gather=comm.gather,
        cut_off=compiled.is_cut_off if compiled else None,
    )
    loop = Loop(
        net,
        head,
        trainer,
        loader,
        comm,
        log,
        progress,
        end_images,
        config.data.batch_size,
        lr=rate(config, epoch_images, end_images),
        margin=margin(config, epoch_images, end_images),
        save=save,
        verify=verify if inputs.sets else None,
        seed=config.run.seed,
        clip_norm=config.optim.clip_norm,
        log_every=config.train.log_every,
        checkpoint_every=config.train.checkpoint_every,
        verify_every=config.eval.every_steps,
    )
    try:
        loop.run()
    except (Stopped, TrainingError) as error:
        status = "stopped" if isinstance(error, Stopped) else "failed"
        finish(log, loop, comm, depends_on, status=status, reason=str(error))
        raise
    finish(log, loop, comm, depends_on, status="finished")


def open_inputs(config: Config, comm: Comm) -> Inputs:
    """Open and check everything that the configuration names."""
    data = config.data
    gpus = mx.context.num_gpus() if config.run.device != "cpu" else 0
    use_gpu, notice = choose_device(config.run.device, gpus, comm.local_rank, comm.local_size)
    ctx = mx.gpu(comm.local_rank) if use_gpu else mx.cpu()
    comm.require_link(ctx)
    decode = data.decode
    if decode not in ("auto", "cpu", "native") and not use_gpu:
        raise ConfigError(f"data.decode: {decode!r} needs a GPU, got none; use data.decode=auto")
    if config.optim.fused_centres and comm.size > 1:
        # Horovod: the step inside the operator would go past the average over the ranks.
        raise ConfigError(
            f"optim.fused_centres: is for one rank, got {comm.size} ranks with all centres on "
            "each; set it to false"
        )
    whole = data.batch_size * comm.size
    mining = config.head.options.get("mining", "")
    groups = data.images_per_person > 0 or data.loader == "synthetic"
    check_batches(config.head.name, mining, groups, data.bag)
    if data.bag and (config.train.margin_start.amount or config.train.margin_warmup.amount):
        raise ConfigError(
            "data.bag: chooses triplets by the whole margin, got one that rises during training; "
            "leave train.margin_start and train.margin_warmup out"
        )
    if data.records:
        records = open_records(
            data.records, config.run.dir, data.num_classes, data.labels, data.images_filter
        )
        images = epoch_images(records, data.batch_size, comm.size, data.images_per_person)
        num_classes, image_size = records.num_classes, records.image_size
    else:
        if not data.num_classes:
            raise ConfigError("data.num_classes: required for synthetic batches, got 0")
        records, num_classes, image_size = None, data.num_classes, (112, 112)
        images = SYNTHETIC_STEPS * whole
    check_image_size(config.net.name, image_size)
    pretrained = open_checkpoint(Path(config.train.pretrained)) if config.train.pretrained else None
    if pretrained:
        pretrained.require_image_size(image_size)
    found = find_sets(config.eval.sets) if config.eval.sets else {}
    sets = {name: read_pairs(path) for name, path in found.items()}
    check_sets(sets, image_size)
    images = max(1, images // whole) * whole
    notices = (notice,) if notice else ()
    return Inputs(ctx, records, sets, pretrained, num_classes, image_size, images, notices)


def free_memory(config: Config, inputs: Inputs, comm: Comm) -> None:
    """Remove decoded pictures that killed runs have left on the hosts, and say so."""
    mib = config.data.decoded_cache_mib
    freed = agree(comm, lambda: remove_left_caches(inputs.records, mib))
    freed = sum(comm.gather_json(freed))
    if freed and comm.rank == 0:  # at once: the run may be refused before it has a log
        print(f"removed {-(-freed >> 20)} MiB of decoded pictures, left by killed runs", flush=True)


def of_this_rank(inputs: Inputs) -> dict[str, Any]:
    """Return what must be equal on all ranks, besides the training data."""
    return {
        "device": inputs.ctx.device_type,
        "pairs": {name: len(pairs) for name, pairs in inputs.sets.items()},
    }


def data_fingerprint(inputs: Inputs) -> dict[str, Any]:
    """Return what a checkpoint keeps of its training data: another set is told by it."""
    records = inputs.records
    return {
        "images": len(records) if records else 0,
        "people": inputs.num_classes,
        "image_size": list(inputs.image_size),
        **(records.checksums() if records else {}),
    }


def run_images(config: Config, epoch_images: int, whole: int) -> int:
    """Return the images of the whole run."""
    train = config.train
    ends = [train.epochs * epoch_images, train.max_images, train.max_steps * whole]
    return min(end for end in ends if end)


def choose_folder(
    config: Config, plain: dict[str, Any], inputs: Inputs, data: dict[str, Any], comm: Comm
) -> tuple[Path, Checkpoint | None, Run | None]:
    """Return run folder and checkpoint, as rank 0 finds them; on rank 0 also the locked run."""
    run = None

    def choose() -> list[str | None]:
        nonlocal run
        if comm.rank:
            return []
        compare = partial(differences, defaults=config.defaults())
        run = choose_run(
            Path(config.run.dir), config.run.name, config.run.resume, plain, compare, data
        )
        write_config(
            run.folder, plain, {"versions": versions(), "commit": commit(), "ranks": comm.size}
        )
        records = inputs.records
        if records and records.origins is not None:
            write_classes(run.folder, records.files, records.origins)
        return [str(run.folder), str(run.checkpoint.folder) if run.checkpoint else None]

    folder, found = comm.gather_json(agree(comm, choose))[0]
    checkpoint = agree(comm, lambda: open_checkpoint(Path(found)) if found else None)
    return Path(folder), checkpoint, run


def make_loader(
    config: Config, inputs: Inputs, comm: Comm, progress: Progress, folder: Path
) -> tuple[Any, str, list[str]]:
    """Return this rank's loader from the run's position on, how it decodes, and notices."""
    data, threads = config.data, config.data.threads or THREADS
    augmentation = Augmentation(
        mirror=data.mirror,
        color_jitter=data.color_jitter,
        jpeg_quality=tuple(data.jpeg_quality) or None,
        jpeg_probability=data.jpeg_probability,
        cut_out=data.cut_out,
        cut_out_probability=data.cut_out_probability,
        shift=data.shift,
        grey=data.grey,
    )
    decode, measured = data.decode, ""
    if decode == "auto" and data.loader == "dali":
        # The CPU fills the cache.
        device = mx.cpu() if data.decoded_cache_mib else inputs.ctx
        # Horovod: it gathers, so nothing before it may fail on one rank alone.
        decode, measured = choose_decode_path(
            inputs.records,
            batch_size=data.batch_size,
            threads=threads,
            ctx=device,
            augmentation=augmentation,
            gather=comm.gather,
        )
    elif decode == "auto":
        decode = "cpu"
    cache = None
    if data.decoded_cache_mib and inputs.records:
        cache = DecodedCache(inputs.records, data.decoded_cache_mib)
    loader = build_loader(
        data.loader,
        inputs.records,
        data.batch_size,
        position=Position(progress.epoch, progress.consumed),
        seed=config.run.seed,
        share=Share(comm.rank, comm.size),
        ctx=inputs.ctx,
        reader=data.reader,
        decode=decode,
        window=data.window,
        block=data.block,
        images_per_person=data.images_per_person,
        augmentation=augmentation,
        threads=threads,
        workers=data.workers,
        prefetch=data.prefetch,
        index_folder=folder / "index",
        cache=cache,
        num_classes=inputs.num_classes,
        image_size=inputs.image_size,
    )
    mixed = inputs.ctx.device_type == "gpu" and data.decode not in ("cpu", "native")
    hardware = jpeg_hardware_notice() if mixed else ""
    return loader, decode, [measured, hardware, loader.notice]


def make_blocks(config: Config, inputs: Inputs, comm: Comm) -> tuple[Any, Any]:
    """Return net and head, initialised on the device and hybridized with static memory."""
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


def restore(
    checkpoint: Checkpoint | None,
    inputs: Inputs,
    net: Any,
    head: Any,
    trainer: Any,
    parameters: dict[str, Any],
) -> str:
    """Load the checkpoint of this run, or the pretrained one of another; return what to say."""
    if checkpoint:
        checkpoint.load_net_parameters(net, inputs.ctx)
        checkpoint.load_head_parameters(head, inputs.ctx)
        checkpoint.load_momentum(trainer, parameters, head)
    elif inputs.pretrained:
        inputs.pretrained.load_net_parameters(net, inputs.ctx)
        taken = inputs.pretrained.load_what_fits(head, inputs.ctx)
        missing = sorted({*head._collect_params_with_prefix()} - {*taken})
        anew = f"; new in the head: {', '.join(missing)}" if missing else ""
        passed_over = "".join(f"; passed over: {text}" for text in inputs.pretrained.damaged)
        return f"starts from the weights of {inputs.pretrained.folder}{anew}{passed_over}"
    return ""


def rate(config: Config, epoch_images: int, end_images: int) -> Any:
    """Return the learning rate as a function of the images used."""
    optim = config.optim
    return partial(
        schedule.learning_rate,
        schedule=optim.schedule,
        lr=optim.lr,
        end=end_images,
        warmup=optim.warmup.images(epoch_images, end_images),
        milestones=[m.images(epoch_images, end_images) for m in optim.milestones],
        decay=optim.decay,
        power=optim.power,
        final_lr=optim.final_lr,
    )


def margin(config: Config, epoch_images: int, end_images: int) -> Any:
    """Return the margin fraction as a function of the images used."""
    train = config.train
    return partial(
        schedule.margin_fraction,
        start=train.margin_start.images(epoch_images, end_images),
        warmup=train.margin_warmup.images(epoch_images, end_images),
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
