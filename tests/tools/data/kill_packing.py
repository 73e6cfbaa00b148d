# SPDX-License-Identifier: Apache-2.0
"""Kill a pack at random moments, resume it, and compare the bytes with those of one run.

    python tests/tools/data/kill_packing.py --times 20
    python tests/tools/data/kill_packing.py --times 20 --align

The command packs images in a temporary folder once without interruption.  Then it packs them again
and kills the process with SIGKILL at a random moment, until the given number of kills is reached;
the number of processes changes with each start.  With --align, each image is also aligned.  A
killed pack must not look complete, its worker processes must end, and every file of a finished set
must equal that of the undisturbed pack.  The exit code is 1 otherwise.
"""

from __future__ import annotations

import argparse
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

from alignment.template import target_points
from tools.data.example_images import write_images

ROOT = Path(__file__).resolve().parents[3]
PEOPLE, IMAGES, OTHER_EVERY = 200, 100, 50


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--times", type=int, default=20, help="number of kills (20)")
    parser.add_argument("--people", type=int, default=PEOPLE, help=f"identities ({PEOPLE})")
    parser.add_argument("--seed", type=int, default=1, help="seed of the random moments (1)")
    parser.add_argument("--align", action="store_true", help="align the images by given points")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="kill-packing-") as temporary:
        folder = Path(temporary)
        write_images(folder / "images", options.people, IMAGES, OTHER_EVERY)
        if options.align:
            write_points(folder)
        failures = kill_often(folder, options.times, random.Random(options.seed))
    print("\n".join(failures) or "every finished set has the bytes of the undisturbed pack")
    return 1 if failures else 0


def kill_often(folder: Path, times: int, moments: random.Random) -> list[str]:
    """Kill, resume and compare; return sentences about what was wrong."""
    start_s = time.monotonic()
    first = subprocess.run(command(folder, "undisturbed", 2), cwd=ROOT, capture_output=True)
    duration_s = time.monotonic() - start_s
    expected = read_files(folder / "undisturbed")
    if first.returncode or "property" not in expected:
        return [f"the undisturbed pack failed: {first.stderr.decode()}"]
    out, failures, kills, sets, resumed = folder / "killed", [], 0, 0, 0
    while kills < times or out.exists():
        last_s = duration_s * moments.uniform(0.05, 1.05) if kills < times else 600
        process = subprocess.Popen(
            command(folder, "killed", 1 + kills % 3),
            cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        try:
            text, _ = process.communicate(timeout=last_s)
        except subprocess.TimeoutExpired:
            workers = psutil.Process(process.pid).children(recursive=True)
            process.send_signal(signal.SIGKILL)
            text, _ = process.communicate()
            kills += 1
            print(f"kill {kills} after {last_s:.2f} s of {duration_s:.2f} s: {found(out)}")
            if psutil.wait_procs(workers, timeout=60)[1]:
                failures.append(f"kill {kills}: worker processes remained")
            if (out / "property").exists() and read_files(out) != expected:
                failures.append(f"kill {kills}: the set looks complete and is not")
        resumed += "resumed after" in text
        if process.returncode == 0:
            sets += 1
            if read_files(out) != expected:
                failures.append(f"set {sets}: other bytes than the undisturbed pack")
            shutil.rmtree(out)
        elif process.returncode > 0:
            return [*failures, f"a pack failed: {text}"]
    print(f"{kills} kills, {resumed} resumptions after packed images, {sets} finished sets")
    return failures


def write_points(folder: Path) -> None:
    """Write points for all images to points.txt, two pixels from those of an aligned face."""
    numbers = " ".join(map(str, (target_points(112, 112) + 2).ravel()))
    names = sorted(path.relative_to(folder / "images") for path in folder.glob("images/*/*"))
    (folder / "points.txt").write_text("".join(f"{name} {numbers}\n" for name in names))


def command(folder: Path, out: str, processes: int) -> list[str]:
    arguments = [str(folder / "images"), str(folder / out), "--val-people", "5"]
    if (folder / "points.txt").exists():
        arguments += ["--align", "--landmarks", str(folder / "points.txt")]
    return [
        *(sys.executable, "-m", "tools.data", "pack"),
        *(*arguments, "--processes", str(processes)),
    ]


def found(out: Path) -> str:
    """Describe what a killed pack left."""
    journal = out / ".unfinished-pack" / "journal.jsonl"
    if not journal.exists():
        return "no journal"
    return f"{max(0, journal.read_bytes().count(bytes([10])) - 1)} pieces in the journal"


def read_files(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


if __name__ == "__main__":
    sys.exit(main())
