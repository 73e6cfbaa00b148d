# SPDX-License-Identifier: Apache-2.0
"""Run run_train.py and record the labels of every step.

record_labels.py FOLDER ARGUMENTS-OF-RUN_TRAIN...

It writes one line of labels to FOLDER/rank-<rank>.txt for each step of a rank.  It can pause like
pausable.py.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import run_train
from tests.parallel import pausable
from training import loop


@contextmanager
def recording(folder: Path, train_step: Callable[..., Any]) -> Iterator[Callable[..., Any]]:
    """Yield a ``train_step`` that also writes the labels of this rank to a file in ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)

    def record(
        net: Any, head: Any, trainer: Any, image: Any, label: Any, *rest: Any, **options: Any
    ) -> Any:
        file.write(" ".join(str(int(x)) for x in label.asnumpy()) + "\n")
        file.flush()
        return train_step(net, head, trainer, image, label, *rest, **options)

    with open(folder / f"rank-{os.environ.get('HOROVOD_RANK', '0')}.txt", "w") as file:
        yield record


def main(folder: Path, arguments: list[str]) -> int:
    pausable.install()
    with recording(folder, loop.train_step) as loop.train_step:
        return run_train.main(arguments)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2:]))
