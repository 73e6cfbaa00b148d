# SPDX-License-Identifier: Apache-2.0
"""Random changes of files; random generators with equal seeds give equal changes."""

from __future__ import annotations

import random
from collections.abc import Sequence

MAX_BYTES = 1 << 20
"""Largest size of a changed file in bytes, unless the caller of `mutate` sets another one."""
_EXTREMES = (0, 1, 2, 3, 4, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFF_FFFF, 0x8000_0000)
_MORE_EXTREMES = (0xFFFF_FFFF, 2**62, 2**63 - 1, 2**63, 2**64 - 1)


def mutate(
    rng: random.Random, data: bytes, tokens: Sequence[bytes] = (), max_bytes: int = MAX_BYTES
) -> bytes:
    """Return a copy of a file with one to eight random changes.

    Parameters
    ----------
    rng
        Source of all random choices.
    data
        Content of the file.
    tokens
        Byte strings with a meaning in the format of the file, such as keywords; some changes insert
        them.
    max_bytes
        Largest size of the result in bytes.
    """
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 3, 4, 8))):
        change = rng.choice(_CHANGES)
        changed = change(rng, changed, tokens)[:max_bytes]
    return bytes(changed)


def _place(rng: random.Random, data: bytearray) -> int:
    # Headers stand at the start of a file, so half of the changes are near the start.
    end = len(data) if rng.random() < 0.5 else min(len(data), 512)
    return rng.randrange(end) if end else 0


def _flip_bit(rng: random.Random, data: bytearray, tokens: Sequence[bytes]) -> bytearray:
    if data:
        data[_place(rng, data)] ^= 1 << rng.randrange(8)
    return data


def _set_byte(rng: random.Random, data: bytearray, tokens: Sequence[bytes]) -> bytearray:
    if data:
        data[_place(rng, data)] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))
    return data


def _set_number(rng: random.Random, data: bytearray, tokens: Sequence[bytes]) -> bytearray:
    size, at = rng.choice((2, 4, 8)), _place(rng, data)
    number = rng.choice((*_EXTREMES, *_MORE_EXTREMES, rng.getrandbits(64))) % (1 << 8 * size)
    piece = number.to_bytes(size, rng.choice(("little", "big")))
    data[at : at + size] = piece
    return data


def _cut(rng: random.Random, data: bytearray, tokens: Sequence[bytes]) -> bytearray:
    return data[: _place(rng, data)]


def _remove(rng: random.Random, data: bytearray, tokens: Sequence[bytes]) -> bytearray:
    at = _place(rng, data)
    del data[at : at + rng.choice((1, 2, 4, 16, 100))]
    return data


def _repeat(rng: random.Random, data: bytearray, tokens: Sequence[bytes]) -> bytearray:
    at = _place(rng, data)
    piece = data[at : at + rng.choice((1, 2, 4, 16, 64, 1000))]
    data[at:at] = piece * rng.choice((1, 1, 2, 10, 1000))
    return data


def _move(rng: random.Random, data: bytearray, tokens: Sequence[bytes]) -> bytearray:
    at, to = _place(rng, data), _place(rng, data)
    piece = data[at : at + rng.choice((1, 4, 16, 64))]
    data[to : to + len(piece)] = piece
    return data


def _insert_token(rng: random.Random, data: bytearray, tokens: Sequence[bytes]) -> bytearray:
    if tokens:
        at = _place(rng, data)
        data[at:at] = rng.choice(tokens) * rng.choice((1, 1, 1, 2, 50, 5000))
    return data


def _change_digits(rng: random.Random, data: bytearray, tokens: Sequence[bytes]) -> bytearray:
    """Replace one decimal digit with a text such as "0", "-1", "nan" or a long number."""
    places = [i for i, byte in enumerate(data[:4096]) if 0x30 <= byte <= 0x39]
    if places:
        at = rng.choice(places)
        number = rng.choice(("0", "-1", "1e9", "inf", "nan", "9" * rng.choice((5, 12, 20, 5000))))
        data[at : at + 1] = number.encode()
    return data


# fmt: off
_CHANGES = (
    _flip_bit, _flip_bit, _set_byte, _set_byte, _set_number, _set_number, _insert_token,
    _insert_token, _cut, _remove, _repeat, _move, _change_digits,
)
# fmt: on
