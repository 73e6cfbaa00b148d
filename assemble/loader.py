# SPDX-License-Identifier: Apache-2.0
"""Build the data loader of a rank, and add triplet mining if the configuration requests it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import mxnet as mx

from launch.ranks.agreement import agree
from pipeline.decode.autotune import choose_decode_path
from pipeline.decode.cache import DecodedCache, remove_stale_caches
from pipeline.decode.dali import jpeg_hardware_notice
from pipeline.loader import Share, build_loader
from pipeline.sampling.augmentation import Augmentation
from pipeline.sampling.bad_images import permitted_images
from pipeline.sampling.epoch_orders import Position
from training.bag import Bags

if TYPE_CHECKING:
    from assemble.inputs import Inputs
    from launch.config.configuration import Config
    from launch.config.sections import DataConfig
    from launch.ranks.comm import Comm
    from training.run import Run
    from training.step import Model


def drop_stale_caches(config: Config, inputs: Inputs, comm: Comm) -> None:
    """Remove the caches of decoded images that killed runs left behind on all hosts.

    Rank 0 prints the total size of the removed caches.
    """
    mib = config.data.decoded_cache_mib
    freed = agree(comm, lambda: remove_stale_caches(inputs.records, mib))
    freed = sum(comm.gather_json(freed))
    # Print at once, because the run may fail before its log exists.
    if freed and comm.rank == 0:
        print(
            f"removed {-(-freed >> 20)} MiB of decoded images that killed runs left behind",
            flush=True,
        )


def make_loader(
    config: Config, inputs: Inputs, run: Run, comm: Comm, threads: int
) -> tuple[Any, str, list[str]]:
    """Build the data loader of this rank.

    Return the loader, the name of its JPEG decoder, and notices for the log.

    Parameters
    ----------
    config
        Configuration of the run.
    inputs
        Inputs of the run on this rank.
    run
        The run; the loader starts at its current position in the epoch.
    comm
        Communication with the other ranks.
    threads
        Number of decoder threads to use if ``data.threads`` is 0.
    """
    data, threads = config.data, config.data.threads or threads
    augmentation = make_augmentation(data)
    decode, measured = choose_decoder(config, inputs, comm, augmentation, threads)
    cache = None
    if data.decoded_cache_mib and inputs.records:
        cache = DecodedCache(inputs.records, data.decoded_cache_mib)
    loader = build_loader(
        data.loader,
        inputs.records,
        data.batch_size,
        position=_position(run),
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
        index_folder=run.folder / "index",
        cache=cache,
        num_classes=inputs.num_classes,
        image_size=inputs.image_size,
        permitted_bad_images=permitted_bad_images(config, inputs),
    )
    mixed = inputs.ctx.device_type == "gpu" and data.decode not in ("cpu", "native")
    hardware = jpeg_hardware_notice() if mixed else ""
    return loader, decode, [measured, hardware, loader.notice]


def make_augmentation(data: DataConfig) -> Augmentation:
    """Return the image augmentation that the section ``data`` of the configuration describes."""
    return Augmentation(
        mirror=data.mirror,
        color_jitter=data.color_jitter,
        jpeg_quality=(data.jpeg_quality[0], data.jpeg_quality[1]) if data.jpeg_quality else None,
        jpeg_probability=data.jpeg_probability,
        cut_out=data.cut_out,
        cut_out_probability=data.cut_out_probability,
        shift=data.shift,
        grey=data.grey,
    )


def choose_decoder(
    config: Config, inputs: Inputs, comm: Comm, augmentation: Augmentation, threads: int
) -> tuple[str, str]:
    """Return the name of the JPEG decoder to use, and a notice for the log ("" if there is none).

    The name is the value of ``data.decode``, unless that value is "auto".
    """
    data = config.data
    if data.decode != "auto":
        return data.decode, ""
    if data.loader != "dali" or inputs.records is None:
        return "cpu", ""
    # Horovod: choose_decode_path calls a collective.  No code above may fail on one rank only,
    # because the other ranks would wait forever in the collective.
    return choose_decode_path(
        inputs.records,
        batch_size=data.batch_size,
        threads=threads,
        # With a cache of decoded images, the CPU decodes each image that enters the cache.
        ctx=mx.cpu() if data.decoded_cache_mib else inputs.ctx,
        augmentation=augmentation,
        gather=comm.gather,
        permitted_bad_images=permitted_bad_images(config, inputs),
    )


def permitted_bad_images(config: Config, inputs: Inputs) -> int | None:
    """Return how many images may be bad; None if the first bad image ends the run.

    The result is also None for synthetic batches, which contain no images of files.
    """
    data = config.data
    if data.on_bad_image == "stop" or inputs.records is None:
        return None
    return permitted_images(data.max_bad_fraction, len(inputs.records))


def mine_triplets(
    config: Config, loader: Any, model: Model, run: Run, comm: Comm, say: Callable[[str], None]
) -> Any:
    """Return a loader that yields mined triplets if ``data.bag`` is set, else return ``loader``.

    Parameters
    ----------
    config
        Configuration of the run.
    loader, model
        Data loader and model of this rank.
    run
        The run; mining starts at its current position in the epoch.
    comm
        Communication with the other ranks.
    say
        Function that writes a line to the log.
    """
    if not config.data.bag:
        return loader
    return Bags(
        loader,
        model.net,
        comm,
        bag=config.data.bag,
        batch_size=config.data.batch_size,
        alpha=config.head.options["margin"],
        angular=config.head.name == "angular_triplet",
        seed=config.run.seed,
        start=_position(run),
        say=say,
    )


def _position(run: Run) -> Position:
    return Position(run.progress.epoch, run.progress.consumed)
