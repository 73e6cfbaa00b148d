# SPDX-License-Identifier: Apache-2.0
"""The order of DALI's window reader in plain Python: twin of ``LoaderKernels.window_order``.

For hosts without the compiled functions; takes half a second for a million records.
"""

from __future__ import annotations

import numpy as np

__all__ = ["window_order"]

_MODULUS = 2**31 - 1  # of std::minstd_rand0, which is std::default_random_engine of libstdc++
_WORD = 2**32


def window_order(count: int, taken: int, window: int, seed: int) -> np.ndarray:
    """Return the order in which ``fn.readers.mxnet`` reads a shard, int32 (taken,).

    Parameters
    ----------
    count, taken
        Records of the shard, and how many of them are wanted.
    window, seed
        The reader's ``initial_fill`` and ``seed``; a window of 1 is no shuffling.

    Outputs
    -------
    Places in the shard, each at most once.
    """
    state = _seeded(seed)
    order = list(range(count))
    for i in range(taken):
        choices = min(window, count - i)
        # std::uniform_int_distribution<>(0, choices - 1) of libstdc++.
        scaling = (_MODULUS - 2) // choices
        beyond = choices * scaling
        drawn = beyond
        while drawn >= beyond:
            state = state * 16807 % _MODULUS
            drawn = state - 1
        j = i + drawn // scaling
        order[i], order[j] = order[j], order[i]
    return np.array(order[:taken], dtype=np.int32)


def _seeded(seed: int) -> int:
    """Return the state of std::minstd_rand0 that std::seed_seq({seed}) gives."""
    return _last_of_four(seed % _WORD) % _MODULUS or 1


def _last_of_four(seed: int) -> int:
    """Return the last of 4 numbers of std::seed_seq({seed}), [rand.util.seedseq] of C++."""
    words = [0x8B8B8B8B] * 4
    for k in range(4):
        here, first, second, before = k, (k + 1) % 4, (k + 2) % 4, (k - 1) % 4
        r1 = 1664525 * _mixed(words[here] ^ words[first] ^ words[before]) % _WORD
        r2 = (r1 + (1 if k == 0 else k + (seed if k == 1 else 0))) % _WORD
        words[first] = (words[first] + r1) % _WORD
        words[second] = (words[second] + r2) % _WORD
        words[here] = r2
    for k in range(4):
        here, first, second, before = k, (k + 1) % 4, (k + 2) % 4, (k - 1) % 4
        r3 = 1566083941 * _mixed((words[here] + words[first] + words[before]) % _WORD) % _WORD
        r4 = (r3 - k) % _WORD
        words[first] ^= r3
        words[second] ^= r4
        words[here] = r4
    return words[3]


def _mixed(word: int) -> int:
    return word ^ word >> 27
