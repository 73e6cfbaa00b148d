# SPDX-License-Identifier: Apache-2.0
"""Draw a PNG file that shows what each augmentation does to some images of a record set.

python tools/show_augmentation.py RECORDS OUT.png

Each row shows one image as the net receives it, with pixel values clipped to 0 to 255.  The first
column shows the original.  Each of the next columns shows one augmentation, applied to every image;
only "mirror" is applied to about half of the images.  The last column, "all", shows InsightFace's
augmentations together (mirror, colour jitter, JPEG compression and cut-out), with their default
probabilities.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from dataclasses import replace

import cv2
import numpy as np

from launch.config.paths import home_path
from normalization import MEAN, STD
from pipeline import build_loader
from pipeline.records.open import RecordSet, open_records
from pipeline.sampling.augmentation import NO_AUGMENTATION, Augmentation

COLUMNS = {
    "original": NO_AUGMENTATION,
    "mirror": Augmentation(),
    "color_jitter": replace(NO_AUGMENTATION, color_jitter=0.125),
    "jpeg_quality": replace(NO_AUGMENTATION, jpeg_quality=(2, 20), jpeg_probability=1.0),
    "cut_out": replace(NO_AUGMENTATION, cut_out=40, cut_out_probability=1.0),
    "shift": replace(NO_AUGMENTATION, shift=8),
    "grey": replace(NO_AUGMENTATION, grey=1.0),
    "all": Augmentation(color_jitter=0.125, jpeg_quality=(2, 20), cut_out=40),
}
TITLE_PIXELS = 16


def main() -> int:
    """Run the tool with the arguments of the command line, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "records", type=home_path, nargs="+", help="folders with train.rec, or .rec files"
    )
    parser.add_argument("out", type=home_path, help="PNG file to write")
    parser.add_argument("--images", type=int, default=8, help="number of images (default: 8)")
    parser.add_argument(
        "--seed",
        type=int,
        default=1,
        help="random seed for the choice of the images and for the augmentations (default: 1)",
    )
    arguments = parser.parse_args()
    try:
        if not arguments.out.parent.is_dir() or arguments.out.suffix != ".png":
            raise ValueError(
                f"OUT: must be a .png file in an existing folder, got {arguments.out}; choose "
                "another name"
            )
        with tempfile.TemporaryDirectory() as scratch:
            records = open_records(arguments.records, scratch)
            sheet = contact_sheet(records, arguments.images, arguments.seed)
        arguments.out.write_bytes(cv2.imencode(".png", sheet)[1].tobytes())
    except (ValueError, OSError) as error:
        print(f"show_augmentation: {error}", file=sys.stderr)
        return 2
    return 0


def contact_sheet(records: RecordSet, images: int, seed: int) -> np.ndarray:
    """Draw a row per image and a column per augmentation.

    Outputs
    -------
    BGR image, (height, width, 3) uint8.
    """
    columns = []
    for title, augmentation in COLUMNS.items():
        loader = build_loader("dali", records, images, seed=seed, augmentation=augmentation)
        pixels = next(loader).image.asnumpy() * STD + MEAN  # (B, 3, H, W)
        loader.close()
        pixels = np.clip(pixels.round(), 0, 255).astype(np.uint8).transpose(0, 2, 3, 1)
        head = np.full((TITLE_PIXELS, pixels.shape[2], 3), 255, dtype=np.uint8)
        cv2.putText(head, title, (2, 12), cv2.FONT_HERSHEY_SIMPLEX, 0.4, (0, 0, 0), 1, cv2.LINE_AA)
        columns.append(np.concatenate([head, *pixels[..., ::-1]]))
    return np.concatenate(columns, axis=1)


if __name__ == "__main__":
    sys.exit(main())
