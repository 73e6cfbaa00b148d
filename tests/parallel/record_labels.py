# SPDX-License-Identifier: Apache-2.0
"""run_train.py that also writes down the labels of every step: ``record_labels.py FOLDER ARGS...``.

FOLDER/rank-<rank>.txt gets one line of labels for each step that this rank trains.  It stands still
where held.py does.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import run_train
from tests.parallel import held
from training import loop


def main(folder: Path, arguments: list[str]) -> int:
    folder.mkdir(parents=True, exist_ok=True)
    held.install()
    train_step = loop.train_step

    def recorded(
        net: Any, head: Any, trainer: Any, image: Any, label: Any, *rest: Any, **options: Any
    ) -> Any:
        file.write(" ".join(str(int(x)) for x in label.asnumpy()) + "\n")
        file.flush()
        return train_step(net, head, trainer, image, label, *rest, **options)

    with open(folder / f"rank-{os.environ.get('HOROVOD_RANK', '0')}.txt", "w") as file:
        loop.train_step = recorded
        return run_train.main(arguments)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2:]))
