# SPDX-License-Identifier: Apache-2.0
"""Command line: score a network on verification sets, or compare two networks on the same sets.

python -m evaluation verify --checkpoint FOLDER --sets A.bin [B.bin | FOLDER ...]
python -m evaluation compare --base FOLDER --checkpoint FOLDER --sets A.bin [B.bin | FOLDER ...]
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from evaluation.pairs import CutOff, read_sets
from evaluation.set_check import check_sets
from launch.config.paths import expand_home
from launch.environment.provenance import VersionAction


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return exit code 0, or 2 after an error message on stderr."""
    options = build_parser().parse_args(arguments)
    try:
        {"verify": run_verify, "compare": run_compare}[options.command](options)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def face_verify() -> int:
    """Run ``python -m evaluation verify`` with the arguments of this process."""
    return main(["verify", *sys.argv[1:]])


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m evaluation", description="Score trained networks."
    )
    parser.add_argument("--version", action=VersionAction)
    commands = parser.add_subparsers(dest="command", required=True)
    verify = commands.add_parser("verify", help="score a network on verification sets")
    compare = commands.add_parser(
        "compare",
        help="compare the accuracies of two networks, with a 95 %% interval of their difference",
    )
    compare.add_argument(
        "--base",
        required=True,
        type=expand_home,
        metavar="FOLDER",
        help="baseline: a checkpoint folder, or a run folder (its newest checkpoint is used)",
    )
    for command in (verify, compare):
        command.add_argument("--version", action=VersionAction)
        command.add_argument(
            "--checkpoint",
            required=True,
            type=expand_home,
            metavar="FOLDER",
            help="network: a checkpoint folder, or a run folder (its newest checkpoint is used)",
        )
        command.add_argument(
            "--sets",
            required=True,
            nargs="+",
            type=expand_home,
            metavar="BIN",
            help="verification sets: .bin files, or folders of .bin files",
        )
        command.add_argument(
            "--json",
            type=expand_home,
            metavar="FILE",
            help="also write the results to this JSON file",
        )
        command.add_argument("--batch-size", type=int, default=64, metavar="N")
        command.add_argument(
            "--device",
            choices=("auto", "cpu", "gpu"),
            default="auto",
            help="device that runs the network: auto is the first GPU, or the CPU without a GPU",
        )
    return parser


def _check(options: argparse.Namespace) -> None:
    if options.batch_size < 1:
        raise ValueError(f"--batch-size: must be at least 1, got {options.batch_size}; 64 is usual")
    if options.json and not Path(options.json).resolve().parent.is_dir():
        raise ValueError(
            f"--json: the folder of the file does not exist, got {options.json}; create the folder "
            "first"
        )


def run_verify(options: argparse.Namespace) -> None:
    """Score a network on verification sets; print a table, and write the JSON file if requested."""
    _check(options)
    # Importing MXNet takes seconds.  Read the sets first, because most usage errors concern them.
    sets = read_sets(options.sets)

    from evaluation.evaluate import evaluate_sets

    ctx = choose_device(options.device)
    checkpoint = open_model(options.checkpoint)
    check_sets(sets, checkpoint.image_size)
    net, image_size = load_net(checkpoint, ctx)
    results = evaluate_sets(
        net,
        sets,
        mean=checkpoint.mean,
        std=checkpoint.std,
        batch_size=options.batch_size,
        ctx=ctx,
        image_size=image_size,
        cut_off=find_cut_off_check(),
    )
    print(format_table(results))
    if options.json:
        report = {"checkpoint": str(checkpoint.folder), "verification": results}
        Path(options.json).write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


def run_compare(options: argparse.Namespace) -> None:
    """Score two networks on the same sets; print the difference in accuracy with an interval."""
    _check(options)
    sets = read_sets(options.sets)

    from evaluation.bootstrap import find_correct_pairs, find_people, paired_difference
    from evaluation.embedding import embed

    ctx = choose_device(options.device)
    checkpoints = [open_model(f) for f in (options.base, options.checkpoint)]
    for checkpoint in checkpoints:
        check_sets(sets, checkpoint.image_size)
    nets = [(c, *load_net(c, ctx)) for c in checkpoints]
    cut_off = find_cut_off_check()
    results = {}
    for name, pairs in sets.items():
        base, other = (
            find_correct_pairs(
                embed(
                    net,
                    pairs.images,
                    size,
                    mean=checkpoint.mean,
                    std=checkpoint.std,
                    batch_size=options.batch_size,
                    ctx=ctx,
                    where=pairs.path,
                    cut_off=cut_off,
                )[0],
                pairs.issame,
            )
            for checkpoint, net, size in nets
        )
        found = paired_difference(base, other, find_people(pairs))
        print(
            f"{name}: accuracy {base.mean():.2%} -> {other.mean():.2%}, difference "
            f"{100 * found.difference:+.2f} percentage points, 95 % interval "
            f"{100 * found.low:+.2f} to {100 * found.high:+.2f} (bootstrap over {found.people} "
            "people)"
        )
        accuracies = {"base": float(base.mean()), "accuracy": float(other.mean())}
        results[name] = accuracies | found._asdict()
    if options.json:
        report = {"base": str(checkpoints[0].folder), "checkpoint": str(checkpoints[1].folder)}
        text = json.dumps(report | {"comparison": results}, indent=2) + "\n"
        Path(options.json).write_text(text, encoding="utf-8")


def open_model(folder: str) -> Any:
    """Open a folder's newest intact checkpoint; report skipped, damaged checkpoints on stderr."""
    from training.checkpoint import open_checkpoint

    checkpoint = open_checkpoint(Path(folder))
    for sentence in checkpoint.damaged:
        print(f"evaluation: skipped a damaged checkpoint: {sentence}", file=sys.stderr)
    return checkpoint


def choose_device(name: str) -> Any:
    """Return the MXNet context for the device "auto", "cpu" or "gpu"."""
    import mxnet as mx

    from launch.environment import gpu

    gpus = mx.context.num_gpus() if name != "cpu" else 0
    if name == "gpu" and not gpus:
        raise ValueError("--device: MXNet finds no usable GPU, got gpu; use --device cpu")
    on_gpu, notice = gpu.choose_device(name, gpus, 0, 1)
    if notice:
        print(f"evaluation: {notice}", file=sys.stderr)
    return mx.gpu(0) if on_gpu else mx.cpu()


def find_cut_off_check() -> CutOff | None:
    """Return the compiled check for truncated JPEGs, or None if ops/native is not compiled."""
    import ops

    compiled = ops.compiled()
    return None if compiled is None else compiled.is_cut_off


def load_net(checkpoint: Any, ctx: Any) -> tuple[Any, tuple[int, int]]:
    """Build the network that a checkpoint describes and load its parameters.

    Outputs
    -------
    The hybridized network on `ctx`, and the (height, width) in pixels of its input images.
    """
    from nets import build_net

    net = build_net(image_size=checkpoint.image_size, **checkpoint.meta["net"])
    net.initialize(ctx=ctx)
    checkpoint.load_net_parameters(net, ctx)
    net.hybridize(static_alloc=True, static_shape=True)
    return net, checkpoint.image_size


def format_table(results: Mapping[str, Mapping[str, Any]]) -> str:
    """Format the results of `evaluate_sets` as a table, one line per set."""
    fars = [key for metrics in results.values() for key in metrics if key.startswith("tar_at_far_")]
    fars = list(dict.fromkeys(fars))
    rows = [["set", "pairs", "accuracy", *(f"tar@far {key[11:]}" for key in fars), "xnorm"]]
    for name, metrics in results.items():
        accuracy = f"{metrics['accuracy']:.2%} ± {metrics['accuracy_std']:.2%}"
        tars = ["-" if metrics[key] is None else f"{metrics[key]:.2%}" for key in fars]
        rows.append([name, str(metrics["pairs"]), accuracy, *tars, f"{metrics['xnorm']:.2f}"])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for first, *rest in rows:
        cells = [first.ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(rest, widths[1:], strict=True)]
        lines.append("  ".join(cells).rstrip())
    if any(metrics[key] is None for metrics in results.values() for key in fars):
        lines.append(
            "-: the set has too few different-person pairs; tar@far needs at least 10 / far of them"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
