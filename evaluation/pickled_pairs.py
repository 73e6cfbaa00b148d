# SPDX-License-Identifier: Apache-2.0
"""Pickle of a verification set, made one image at a time."""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Sequence

ENCODE, LATIN1, FIRST_IMAGE = 0, 1, 2
"""Indices in the memo of the pickle: of the function that makes bytes, of the name of its encoding,
and of the first image."""


def pickled_parts(images: Sequence[bytes], issame: Sequence[bool]) -> Iterator[bytes]:
    """Yield the parts of a pickle (protocol 2) of the tuple (list of images, list of bools).

    Together the parts equal the output of ``pickle.dump``, but need less memory: ``pickle.dump``
    keeps a copy of each image as text until the whole pickle is written.  As with ``pickle.dump``,
    an image that occurs several times as the same object is stored once.

    Parameters
    ----------
    images
        Encoded images, two per pair, pair after pair; at least one.
    issame
        One bool per pair, True if the pair shows one person.
    """
    encode = pickle.GLOBAL + b"_codecs\nencode\n" + pickle.BINPUT + bytes([ENCODE])
    latin1 = _pickled_text("latin1") + pickle.BINPUT + bytes([LATIN1])
    numbers: dict[int, int] = {}
    yield pickle.PROTO + b"\x02" + pickle.EMPTY_LIST
    for image in images:
        number = numbers.get(id(image))
        if number is not None:
            yield pickle.LONG_BINGET + number.to_bytes(4, "little") + pickle.APPEND
            continue
        # Protocol 2 has no opcode for bytes, so the pickle makes its reader call
        # encode(text, "latin1").
        number = numbers[id(image)] = FIRST_IMAGE + len(numbers)
        yield encode + _pickled_text(image.decode("latin1")) + latin1
        yield pickle.TUPLE2 + pickle.REDUCE
        yield pickle.LONG_BINPUT + number.to_bytes(4, "little") + pickle.APPEND
        encode = pickle.BINGET + bytes([ENCODE])
        latin1 = pickle.BINGET + bytes([LATIN1])
    flags = b"".join(pickle.NEWTRUE if same else pickle.NEWFALSE for same in issame)
    yield pickle.EMPTY_LIST + pickle.MARK + flags + pickle.APPENDS + pickle.TUPLE2 + pickle.STOP


def _pickled_text(text: str) -> bytes:
    data = text.encode()
    return pickle.BINUNICODE + len(data).to_bytes(4, "little") + data
