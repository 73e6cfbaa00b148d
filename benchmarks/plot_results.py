# SPDX-License-Identifier: Apache-2.0
"""Draw a bar chart of the results that a benchmark wrote with ``--json``.

    python benchmarks/plot_results.py FILE.json OUT.png [--rows NAME ...]

The bars have the order of the names after ``--rows``.  This script draws the chart of the README;
docs/benchmarks.md gives the command.
"""

from __future__ import annotations

import argparse
import json
import sys

from benchmarks.harness import chart
from launch.config.paths import home_path


def main() -> int:
    """Draw a bar for each result row, or for each row that --rows names; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument(
        "results", type=home_path, help="JSON file that a benchmark wrote with --json"
    )
    parser.add_argument("image", type=home_path, help="PNG file to write")
    parser.add_argument(
        "--rows", nargs="+", metavar="NAME", help="names of the rows to draw (default: all)"
    )
    parser.add_argument("--title", default="", help="title of the chart")
    arguments = parser.parse_args()
    measured = {row["name"]: row for row in json.loads(arguments.results.read_text())["rows"]}
    unknown = [name for name in arguments.rows or () if name not in measured]
    if unknown:
        print(f"--rows: no such rows in {arguments.results}, got {unknown}; "
              f"choose from {list(measured)}", file=sys.stderr)  # fmt: skip
        return 2
    rows = [
        {key: value for key, value in measured[name].items() if not key.startswith("of limit ")}
        for name in arguments.rows or measured
    ]
    problem = chart.draw(
        [rows], arguments.title, arguments.image, rates="images_per_second" in rows[0]
    )
    if problem:
        print(problem, file=sys.stderr)
    return 2 if problem else 0


if __name__ == "__main__":
    sys.exit(main())
