# SPDX-License-Identifier: Apache-2.0
"""Range of class centres that one rank holds when a head is distributed over the ranks.

A distributed head has an attribute ``shard``; in other heads this attribute is missing or None.
Checkpoints save and load distributed heads, and rely on three properties of such a head:

- The parameters in ``PER_CLASS_PARAMETERS`` hold the rows of the classes of ``shard`` only, with
  the same number of adjacent rows for each class.  On a rank without classes, such a parameter may
  have rows that belong to no class; they are neither saved nor loaded.  All other parameters are
  equal on all ranks.
- The momentum of these parameters is in ``head.momentum``, a mapping from parameter name to array,
  or in the trainer ``Model.shard_trainer``.
- ``head.sampler_state()`` returns the state of the generator that samples classes, as a dict that
  JSON can represent, and ``head.load_sampler_state(state)`` restores it.  The state is equal on all
  ranks: it contains the seed and the number of draws, for example, but not the rank.  A run can
  therefore resume on another number of ranks.
"""

from collections.abc import Iterator
from dataclasses import dataclass

PER_CLASS_PARAMETERS = ("weight", "bias")
"""Names of the parameters whose rows a distributed head divides among the ranks by class."""


@dataclass(frozen=True)
class Shard:
    """Half-open range ``start`` to ``stop`` of the class numbers whose centres one rank holds.

    The ranges of the ranks 0 to ``size`` - 1 are contiguous, ascending and disjoint, and cover all
    class numbers. Their lengths differ by at most one; the lower ranks hold the longer ranges.
    With fewer classes than ranks, the ranges of the highest ranks are empty.

    Parameters
    ----------
    num_classes
        Number of classes of all ranks together.
    rank, size
        Number of this rank, from 0, and number of ranks.
    start, stop
        First class number of this rank, and the class number after its last one.
    """

    num_classes: int
    rank: int
    size: int
    start: int
    stop: int

    @classmethod
    def of(cls, num_classes: int, rank: int, size: int) -> "Shard":
        """Return the shard of ``rank`` among ``size`` ranks.

        Raises ValueError for a negative number of classes and for a rank outside 0 to size - 1.
        """
        if num_classes < 0:
            raise ValueError(
                f"shard: the number of classes is negative, got {num_classes}; give 0 or more"
            )
        if not 0 <= rank < size:
            raise ValueError(
                "shard: the rank must be 0 or more, and less than the number of ranks, got rank "
                f"{rank} of {size}; correct the rank"
            )
        share, longer = divmod(num_classes, size)
        start = rank * share + min(rank, longer)
        return cls(num_classes, rank, size, start, start + share + (rank < longer))

    @property
    def num_rows(self) -> int:
        """Number of class centres of this rank."""
        return self.stop - self.start


def all_shards(num_classes: int, size: int) -> Iterator[Shard]:
    """Yield the shards of the ranks 0 to ``size`` - 1."""
    return (Shard.of(num_classes, rank, size) for rank in range(size))
