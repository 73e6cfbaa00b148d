# SPDX-License-Identifier: Apache-2.0
"""Memory of the class centres of one rank, computed before anything is allocated."""

import math
from dataclasses import dataclass

from heads.shard import Shard

FLOAT_BYTES = 4
SAMPLE_ARRAYS, FUSED_SAMPLE_ARRAYS = 3, 2
"""Number of arrays, each as large as the centres of a sample of classes, that a step needs.

With the fused operator (``FUSED_SAMPLE_ARRAYS``), these are the centres and the momentum. Without
the fused operator (``SAMPLE_ARRAYS``), there is also the gradient."""


@dataclass(frozen=True)
class HeadMemory:
    """Bytes that the class centres of one rank need.

    ``centres`` and ``momentum`` are the sizes of arrays that exist during the whole run.
    ``gradient`` is the size of the gradient of all centres of the rank; it is 0 if the rank samples
    classes or uses the fused operator.  ``sample`` is the size of the centres of a sample of
    classes and of the arrays for their update.
    """

    centres: int
    momentum: int
    gradient: int = 0
    sample: int = 0

    @property
    def total(self) -> int:
        """Sum of all parts."""
        return self.centres + self.momentum + self.gradient + self.sample

    def parts(self) -> dict[str, int]:
        """Return the parts that are not 0, by name."""
        named = ("centres", "momentum", "gradient", "sample")
        return {name: getattr(self, name) for name in named if getattr(self, name)}


def head_memory(
    num_classes: int,
    embedding_size: int,
    ranks: int = 1,
    *,
    sample_rate: float = 1.0,
    sub_centers: int = 1,
    has_momentum: bool = True,
    fused: bool = False,
) -> HeadMemory:
    """Compute the memory of the rank with the most classes.

    Parameters
    ----------
    num_classes
        Number of classes of all ranks together.
    embedding_size
        Number of dimensions of a class centre; each dimension is a float32 number.
    ranks
        Number of ranks over which the classes are distributed; 1 if every rank holds all classes.
    sample_rate
        Fraction of the classes of a rank that take part in a step.  If the batch has images of more
        classes than this fraction, the sample needs more memory than this function returns.
    sub_centers
        Number of centres per class.
    has_momentum
        Whether the optimizer keeps a momentum.
    fused
        Whether the fused operator updates the centres, without an array of their gradient.
    """
    classes = Shard.of(num_classes, 0, ranks).num_rows
    row_bytes = sub_centers * embedding_size * FLOAT_BYTES
    centres = classes * row_bytes
    sampled = sample_rate < 1
    arrays = (FUSED_SAMPLE_ARRAYS if fused else SAMPLE_ARRAYS) if sampled else 0
    return HeadMemory(
        centres=centres,
        # A head that updates its own centres allocates the momentum buffer even if optim.momentum
        # is 0.
        momentum=centres if has_momentum or sampled or fused else 0,
        gradient=0 if sampled or fused else centres,
        sample=arrays * math.ceil(sample_rate * classes) * row_bytes,
    )
