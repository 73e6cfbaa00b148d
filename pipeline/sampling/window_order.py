# SPDX-License-Identifier: Apache-2.0
"""Compute in plain Python the order in which DALI's ``fn.readers.mxnet`` shuffles records.

The compiled function ``LoaderKernels.window_order`` computes the same order.  The Python function,
for hosts without compiled functions, takes half a second for a million records.
"""

from __future__ import annotations

import numpy as np

_MODULUS = 2**31 - 1  # modulus of std::minstd_rand0, the default random engine of libstdc++
_WORD = 2**32


def window_order(count: int, taken: int, window: int, seed: int) -> np.ndarray:
    """Return the order in which ``fn.readers.mxnet`` reads the records of a shard.

    Parameters
    ----------
    count
        Number of records in the shard.
    taken
        Number of records to read from the shard.
    window, seed
        Arguments ``initial_fill`` and ``seed`` of the reader.  A window of 1 does not shuffle.

    Outputs
    -------
    int32 array of shape (taken,): indices of records in the shard, in reading order; none repeats.
    """
    state = _seed_engine(seed)
    order = list(range(count))
    for i in range(taken):
        choices = min(window, count - i)
        # Draw as std::uniform_int_distribution<>(0, choices - 1) of libstdc++ does.
        scaling = (_MODULUS - 2) // choices
        beyond = choices * scaling
        drawn = beyond
        while drawn >= beyond:
            state = state * 16807 % _MODULUS
            drawn = state - 1
        j = i + drawn // scaling
        order[i], order[j] = order[j], order[i]
    return np.array(order[:taken], dtype=np.int32)


def _seed_engine(seed: int) -> int:
    """Return the state of std::minstd_rand0 after seeding with std::seed_seq({seed}).

    The state is the last of the 4 words that the seed sequence generates ([rand.util.seedseq] of
    the C++ standard), modulo _MODULUS, or 1 if the result is 0.
    """
    seed %= _WORD
    words = [0x8B8B8B8B] * 4
    for k in range(4):
        first, second, before = (k + 1) % 4, (k + 2) % 4, (k - 1) % 4
        r1 = 1664525 * _mix(words[k] ^ words[first] ^ words[before]) % _WORD
        r2 = (r1 + (1 if k == 0 else k + (seed if k == 1 else 0))) % _WORD
        words[first] = (words[first] + r1) % _WORD
        words[second] = (words[second] + r2) % _WORD
        words[k] = r2
    for k in range(4):
        first, second, before = (k + 1) % 4, (k + 2) % 4, (k - 1) % 4
        r3 = 1566083941 * _mix((words[k] + words[first] + words[before]) % _WORD) % _WORD
        words[first] ^= r3
        words[second] ^= (r3 - k) % _WORD
        words[k] = (r3 - k) % _WORD
    return words[3] % _MODULUS or 1


def _mix(word: int) -> int:
    return word ^ word >> 27
