"""A dialect decides which opcodes, globals and identifiers a pickle may contain."""

from __future__ import annotations

import pickle

import pytest

from plain_pickle import Dialect, KnownGlobal, PlainPickleError, describe, load_with
from plain_pickle.dialect import BASIC_OPCODES


class Wide(Dialect):
    content = "dicts"
    opcodes = BASIC_OPCODES | {
        *("EMPTY_DICT", "DICT", "SETITEM", "SETITEMS", "FLOAT", "BINFLOAT", "BINPERSID"),
    }


def test_the_basic_dialect_refuses_dicts_and_a_wider_one_reads_them():
    for protocol in range(1, 5):
        data = pickle.dumps({"a": 1.5, 2: {"b": [None]}}, protocol)
        with pytest.raises(PlainPickleError, match="holds more than plain data, got the opcode"):
            load_with(data, Dialect())
        assert load_with(data, Wide())[0] == {"a": 1.5, 2: {"b": [None]}}


def test_text_of_protocol_0_gives_dicts_and_floats():
    assert load_with(b"(S'a'\nF1.5\nd.", Wide())[0] == {b"a": 1.5}


def test_a_pickle_may_start_and_end_within_other_bytes():
    data = b"xx" + pickle.dumps([1]) + pickle.dumps([2])
    first, end = load_with(data, Dialect(), 2)
    assert first == [1] and load_with(data, Dialect(), end) == ([2], len(data))


def test_unknown_globals_calls_states_and_identifiers_are_refused_by_name():
    for data, message in (
        (b"cos\nsystem\n.", "got the global 'os.system'"),
        (b"(I1\nios\nsystem\n.", "got the global 'os.system'"),
        (b"I1\n(tR.", "calls an object that is no function, got int 1"),
        (b"I1\nI2\nb.", "state of an object that has none, got int 1"),
        (b"S'x'\nQ.", "holds more than dicts, got the persistent identifier"),
    ):
        with pytest.raises(PlainPickleError, match=message):
            load_with(data, Wide())


@pytest.mark.parametrize(
    "data",
    [
        b"}(I1\ntI2\ns.",  # a tuple as a key
        b"}(I1\nI2\nI3\nu.",  # a key without a value
        b"]I1\nI2\ns.",  # a list as the target
        b"}L%d\nI2\ns." % 2**61,  # a key whose hash is that of 1
        b"}F1.5\nI2\ns.",
    ],
)
def test_malformed_dicts_are_refused(data):
    with pytest.raises(PlainPickleError, match="got"):
        load_with(data, Wide())


def test_values_are_described_without_their_contents():
    circular: dict = {}
    circular["a"] = circular
    assert describe(circular) == "a dict of 1"
    assert describe(1.5) == "float 1.5"

    class Named(KnownGlobal):
        def __str__(self) -> str:
            return "a.b"

    assert describe(Named()) == "the global a.b"


def test_the_number_of_opcodes_is_limited():
    class Short(Dialect):
        max_opcodes = 10

    assert load_with(b"N" * 9 + b".", Short())[0] is None
    with pytest.raises(PlainPickleError, match="got more than 10 opcodes"):
        load_with(b"N" * 10 + b".", Short())
