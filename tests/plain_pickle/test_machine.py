# SPDX-License-Identifier: Apache-2.0
"""Hostile pickles: no code of the file runs, and the reader raises its own error.

The live attacks also run with Python's own unpickler, which proves that they work.
"""

from __future__ import annotations

import contextlib
import copyreg
import os
import pickle
import random
import re
import tracemalloc

import numpy as np
import pytest

from evaluation.pairs import PairsError, read_pairs
from plain_pickle import Arrays, PlainPickleError, load_plain
from plain_pickle import machine as pickle_machine

EXTENSION = 0x77


def short(text: str) -> bytes:
    return b"\x8c" + bytes([len(text)]) + text.encode()


def live_attacks(canary: str) -> dict[str, bytes]:
    """Pickles that create the file `canary` when they are unpickled."""
    touch = f"S'touch {canary}'\n".encode()
    script = f"open({canary!r}, 'w').close()"
    quoted = b"V" + script.encode() + b"\n"
    calls = b"(" + quoted + b"tR."
    nested = b"((lcos\nsystem\n(" + touch + b"tRa(lI01\nat."

    class Evil:
        def __reduce__(self):
            return os.system, (f"touch {canary}",)

    attacks = {
        "os.system": b"cos\nsystem\n(" + touch + b"tR.",
        "posix.system": b"cposix\nsystem\n(" + touch + b"tR.",
        "eval": b"cbuiltins\neval\n" + calls,
        "python 2 eval": b"\x80\x02c__builtin__\neval\n" + calls,
        "exec": b"cbuiltins\nexec\n" + calls,
        "INST": b"(" + touch + b"ios\nsystem\n.",
        "OBJ": b"(csubprocess\ngetoutput\n" + touch + b"o.",
        "in a list": nested,
        "after a good pair": b"\x80\x02](C\x01aC\x01be]\x88acos\nsystem\n(" + touch + b"tR0\x86.",
        "STACK_GLOBAL": b"\x80\x04\x8c\x02os\x8c\x06system\x93(" + touch + b"tR.",
        "dotted name": b"\x80\x04\x8c\x06shutil\x8c\x09os.system\x93(" + touch + b"tR.",
        "getattr chain": b"cbuiltins\ngetattr\n(cbuiltins\n__import__\n(S'os'\ntRS'system'\ntR("
        + touch
        + b"tR.",
        "apply": b"cfunctools\npartial\n(cos\nsystem\n" + touch + b"tR(tR.",
        "map": b"cbuiltins\nlist\n(cbuiltins\nmap\n(cos\nsystem\n(" + touch + b"ltRtR.",
        "extension": b"\x82" + bytes([EXTENSION]) + b"(" + touch + b"tR.",
        "extension 2": b"\x83" + EXTENSION.to_bytes(2, "little") + b"(" + touch + b"tR.",
        "extension 4": b"\x84" + EXTENSION.to_bytes(4, "little") + b"(" + touch + b"tR.",
        "NEWOBJ": b"cos\nsystem\n(" + touch + b"tRcbuiltins\nobject\n)\x810.",
        "BUILD": b"cos\nsystem\n(" + touch + b"tR0cbuiltins\nobject\n)\x81.",
    }
    for protocol in range(6):
        attacks[f"object {protocol}"] = pickle.dumps(([Evil(), b"x"], [True]), protocol)
        array = np.array([Evil(), None], dtype=object)
        attacks[f"object array {protocol}"] = pickle.dumps(([array, b"x"], [True]), protocol)
        record = np.array([(Evil(), 1)], dtype=[("a", object), ("b", "u1")])
        attacks[f"object in a record {protocol}"] = pickle.dumps(([record, b"x"], [True]), protocol)
    return attacks


@pytest.fixture
def extension():
    copyreg.add_extension("os", "system", EXTENSION)
    yield
    copyreg.remove_extension("os", "system", EXTENSION)


def test_live_attacks_run_nothing(tmp_path, extension):
    canary, path = tmp_path / "canary", tmp_path / "evil.bin"
    for name, data in live_attacks(str(canary)).items():
        path.write_bytes(data)
        with pytest.raises(PairsError) as caught:
            read_pairs(path)
        assert type(caught.value) is PairsError, name
        assert str(caught.value).startswith(f"{path}: "), name
        assert ", got " in str(caught.value), name
        assert caught.value.__cause__ is None and caught.value.__suppress_context__, name
        assert not canary.exists(), name

        with contextlib.suppress(Exception):  # some attacks raise after they have run
            pickle.loads(data)
        assert canary.exists(), f"{name}: does not work on pickle either"
        canary.unlink()
        # Try again: pickle.loads has filled the extension cache.
        with pytest.raises(PairsError):
            read_pairs(path)
        assert not canary.exists(), name


def array_pickle(state: bytes) -> bytes:
    """Pickle one array with this state: the items between MARK and TUPLE."""
    made = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS'b'\ntR("
    return made + state + b"tb."


def dtype_pickle(code: bytes, state: bytes = b"(I3\nS'|'\nNNNI-1\nI-1\nI0\ntb") -> bytes:
    return b"cnumpy\ndtype\n(S'" + code + b"'\nI0\nI1\ntR" + state


U1 = dtype_pickle(b"u1")
FROMBUFFER = b"\x80\x05cnumpy.core.numeric\n_frombuffer\n("
ENCODE = b"c_codecs\nencode\n("

REFUSED = {
    "numpy.load": (b"cnumpy\nload\n(S'x.npy'\ntR.", "numpy.load"),
    "numpy.fromfile": (b"cnumpy\nfromfile\n(S'/etc/passwd'\ntR.", "numpy.fromfile"),
    "multiarray.fromfile": (b"cnumpy.core.multiarray\nfromfile\n(S'x'\ntR.", "fromfile"),
    "numpy dotted": (
        b"\x80\x04" + short("numpy") + short("ndarray.tofile") + b"\x93.",
        "numpy.ndarray.tofile",
    ),
    "numpy dotted module": (
        b"\x80\x04" + short("numpy.core.multiarray") + short("scalar.__self__") + b"\x93.",
        "scalar.__self__",
    ),
    "dunder of an allowed one": (
        b"\x80\x04" + short("_codecs") + short("encode.__self__") + b"\x93.",
        "encode.__self__",
    ),
    "split in another place": (
        b"\x80\x04" + short("numpy.core") + short("multiarray.scalar") + b"\x93.",
        "numpy.core.multiarray.scalar",
    ),
    "global of bytes": (b"\x80\x04C\x05numpyC\x07ndarray\x93.", "not text"),
    "codecs.decode": (b"c_codecs\ndecode\n(S'x'\nVlatin1\ntR.", "_codecs.decode"),
    "codecs.lookup": (b"c_codecs\nlookup\n(Vlatin1\ntR.", "_codecs.lookup"),
    "codecs, the public module": (b"ccodecs\nencode\n(Vx\nVlatin1\ntR.", "codecs.encode"),
    "zlib": (ENCODE + b"S'x'\nVzlib\ntR.", "_codecs.encode"),
    "rot13": (ENCODE + b"Vx\nVrot13\ntR.", "_codecs.encode"),
    "utf-8": (ENCODE + b"Vx\nVutf-8\ntR.", "_codecs.encode"),
    "codec as bytes": (ENCODE + b"Vx\nS'latin1'\ntR.", "_codecs.encode"),
    "encode of bytes": (ENCODE + b"S'x'\nVlatin1\ntR.", "_codecs.encode"),
    "encode with errors": (ENCODE + b"Vx\nVlatin1\nVreplace\ntR.", "_codecs.encode"),
    "encode of what does not fit": (ENCODE + b"V\\u20ac\nVlatin1\ntR.", "UnicodeEncodeError"),
    "bytes of a number": (b"cbuiltins\nbytes\n(I1000000000000\ntR.", "bytes"),
    "bytearray": (b"cbuiltins\nbytearray\n(I1000000000000\ntR.", "builtins.bytearray"),
    "reconstructor": (b"ccopy_reg\n_reconstructor\n(tR.", "copy_reg._reconstructor"),
    "newobj of copyreg": (b"ccopyreg\n__newobj__\n(tR.", "copyreg.__newobj__"),
    "persistent id": (b"Pos.system\n.", "PERSID"),
    "persistent id on the stack": (b"S'os'\nQ.", "BINPERSID"),
    "INST of an allowed global": (b"(I1\ninumpy\nndarray\n.", "INST"),
    "OBJ of an allowed global": (b"(cnumpy\nndarray\nI1\no.", "OBJ"),
    "NEWOBJ of an allowed global": (b"\x80\x02cnumpy\nndarray\nI1\n\x85\x81.", "NEWOBJ"),
    "NEWOBJ_EX": (b"\x80\x04cnumpy\nndarray\n)}\x92.", "EMPTY_DICT"),
    "NEXT_BUFFER": (b"\x80\x05\x97.", "NEXT_BUFFER"),
    "dict": (b"(d.", "DICT"),
    "set": (b"\x80\x04\x8f.", "EMPTY_SET"),
    "float": (b"F1.0\n.", "FLOAT"),
    "no opcode": (b"\xf0.", "opcode"),
    "call of ndarray": (b"cnumpy\nndarray\n((I4\ntS'O'\ntR.", "numpy.ndarray"),
    "call of text": (b"S'os'\n(tR.", "calls an object that is no function"),
    "call without a tuple": (ENCODE + b"lR.", "calls an object that is no function"),
    "state of a global": (b"cnumpy\nndarray\n(tb.", "the global numpy.ndarray"),
    "state of a list": (b"](tb.", "state"),
    "state twice": (array_pickle(b"I1\n(I1\nt" + U1 + b"I00\nS'x'\n")[:-1] + b"(tb.", "state"),
    "reconstruct another class": (
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\ndtype\n(I0\ntS'b'\ntR.",
        "_reconstruct",
    ),
    "unbuilt array": (
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS'b'\ntR.",
        "unfinished",
    ),
    "unbuilt dtype": (array_pickle(b"I1\n(I1\ntcnumpy\ndtype\n(S'u1'\ntRI00\nS'x'\n"), "dtype"),
    "object dtype": (dtype_pickle(b"O8") + b".", "'O8'"),
    "object dtype, short": (dtype_pickle(b"O") + b".", "'O'"),
    "structured dtype": (dtype_pickle(b"V1") + b".", "'V1'"),
    "text dtype": (dtype_pickle(b"U4") + b".", "'U4'"),
    "date dtype": (dtype_pickle(b"M8") + b".", "'M8'"),
    "dtype by a list": (b"cnumpy\ndtype\n((lS'u1'\natR.", "dtype"),
    "fields on a plain dtype": (
        dtype_pickle(b"u1", b"(I3\nS'|'\nN(S'a'\nt(lI1\nI1\nI0\ntb."),
        "state",
    ),
    "subarray on a plain dtype": (
        dtype_pickle(b"u1", b"(I3\nS'|'\n(I1\ntNNI-1\nI-1\nI0\ntb."),
        "state",
    ),
    "item size on a plain dtype": (dtype_pickle(b"u1", b"(I3\nS'|'\nNNNI8\nI8\nI0\ntb."), "state"),
    "object flag on a plain dtype": (
        dtype_pickle(b"u1", b"(I3\nS'|'\nNNNI-1\nI-1\nI63\ntb."),
        "state",
    ),
    "metadata on a plain dtype": (
        dtype_pickle(b"u1", b"(I3\nS'|'\nNNNI-1\nI-1\nI0\nNtb."),
        "state",
    ),
    "byte order": (dtype_pickle(b"u1", b"(I3\nS'O'\nNNNI-1\nI-1\nI0\ntb."), "state"),
    "huge shape": (array_pickle(b"I1\n(I99999999999\nt" + U1 + b"I00\nS'x'\n"), "needs 9999"),
    "shape that overflows": (
        array_pickle(b"I1\n(L4294967296L\nL4294967297L\nt" + U1 + b"I00\nS'x'\n"),
        "needs",
    ),
    "shape that overflows to nothing": (
        array_pickle(b"I1\n(L4294967296L\nL4294967296L\nt" + U1 + b"I00\nS''\n"),
        "needs",
    ),
    "huge and nothing": (
        array_pickle(b"I1\n(L99999999999999999999L\nI0\nt" + U1 + b"I00\nS''\n"),
        "Error",
    ),
    "negative shape": (array_pickle(b"I1\n(I-1\nt" + U1 + b"I00\nS'x'\n"), "shape"),
    "two negatives": (array_pickle(b"I1\n(I-1\nI-1\nt" + U1 + b"I00\nS'x'\n"), "shape"),
    "bool in a shape": (array_pickle(b"I1\n(I01\nt" + U1 + b"I00\nS'x'\n"), "shape"),
    "shape as a list": (array_pickle(b"I1\n(I1\nl" + U1 + b"I00\nS'x'\n"), "shape"),
    "long data": (array_pickle(b"I1\n(I1\nt" + U1 + b"I00\nS'xyz'\n"), "needs 1 bytes, got 3"),
    "data as a list": (array_pickle(b"I1\n(I1\nt" + U1 + b"I00\n(lI1\na"), "not bytes"),
    "many axes": (array_pickle(b"I1\n(" + b"I1\n" * 64 + b"t" + U1 + b"I00\nS'x'\n"), "axes"),
    "state too short": (array_pickle(b"I1\n(I1\nt" + U1), "state"),
    "dtype is text": (array_pickle(b"I1\n(I1\ntS'u1'\nI00\nS'x'\n"), "dtype"),
    "frombuffer, short": (
        FROMBUFFER + b"\x96\x01" + bytes(7) + b"x" + U1 + b"(I9\ntVC\ntR.",
        "needs 9 bytes, got 1",
    ),
    "frombuffer, order": (
        FROMBUFFER + b"\x96\x01" + bytes(7) + b"x" + U1 + b"(I1\ntVK\ntR.",
        "_frombuffer",
    ),
    "frombuffer, array as the order": (
        FROMBUFFER
        + (b"C\x01x" + U1 + b"(I1\nt")
        + array_pickle(b"I1\n(I1\nt" + U1 + b"I00\nS'x'\n")[:-1]
        + b"tR.",
        "_frombuffer",
    ),
    "scalar, long": (
        b"cnumpy.core.multiarray\nscalar\n(" + U1 + b"S'xyz'\ntR.",
        "needs 1 bytes, got 3",
    ),
    "scalar of an object": (
        b"cnumpy.core.multiarray\nscalar\n(" + dtype_pickle(b"O8") + b"S'12345678'\ntR.",
        "'O8'",
    ),
    "announces more than it has": (b"\x80\x04\x8e" + b"\xff" * 7 + b"\x7fabc", "is cut off"),
    "long number": (b"\x80\x02\x8b\x00\x00\x00\x40" + b"\x01" * 64, "too long a number"),
    "long number as text": (b"L" + b"9" * 5000 + b"L\n.", "too long a number"),
    "long number on one line without end": (b"I" + b"9" * 5000, "too long a number"),
    "long number of bytes that are there": (b"\x80\x02\x8a\x40" + bytes(64) + b".", "too long"),
    "long key of the memo": (b"Np" + b"9" * 5000 + b"\n.", "too long a number"),
    "text after a number without end": (b"I1\nS'abc", "is cut off"),
    "number that is none": (b"Iabc\n.", "ValueError"),
    "text without quotes": (b"Sabc\n.", "quotes"),
    "text with two quotes": (b"S'abc\"\n.", "quotes"),
    "text of one quote": (b"S'\n.", "quotes"),
    "empty stack": (b".", "IndexError"),
    "mark never set": (b"t.", "IndexError"),
    "tuple of too few": (b"I1\n\x86.", "IndexError"),
    "memo never put": (b"g7\n.", "KeyError"),
    "append to a tuple": (b")I1\na.", "no list"),
    "bad utf-8": (b"\x80\x04\x8c\x01\xff.", "UnicodeDecodeError"),
    "future protocol": (b"\x80\x63N.", "protocol, got 99"),
    "circular list": (b"]q\x00h\x00a.", "pair of lists, got a list of 1"),
    "circular pair": (b"]q\x00(h\x00h\x00e.", "issame for pair 0 is not"),
    "not a pickle": (b"\xff\xd8\xff\xe0\x00\x10JFIF", "opcode"),
    "git lfs pointer": (b"version https://git-lfs.github.com/spec/v1\n", "opcode"),
    "web page": (b"<!DOCTYPE html>", "opcode"),
}


def test_everything_but_plain_data_is_refused_by_name(tmp_path):
    path = tmp_path / "evil.bin"
    for name, (data, problem) in REFUSED.items():
        path.write_bytes(data)
        with pytest.raises(PairsError, match=f"^{re.escape(f'{path}: ')}") as caught:
            read_pairs(path)
        message = str(caught.value)
        assert type(caught.value) is PairsError, name
        assert problem in message, name
        assert ", got " in message, name
        assert len(message) < 400 + len(str(path)), name
        assert message.isprintable(), name


@pytest.mark.parametrize("image", [b"\xff\xd8abc", np.arange(9, dtype=np.uint8)], ids=type)
@pytest.mark.parametrize("protocol", range(6))
def test_every_truncation_is_refused(tmp_path, protocol, image):
    images = [image.copy() if isinstance(image, np.ndarray) else image for _ in range(2)]
    data = pickle.dumps((images, [np.bool_(True)]), protocol)
    for length in range(len(data)):
        with pytest.raises(PlainPickleError):
            load_plain(data[:length])
    path = tmp_path / "cut.bin"
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(PairsError, match="cut.bin: the pickle is cut off"):
        read_pairs(path)
    path.write_bytes(data)
    assert len(read_pairs(path)) == 1


def test_random_damage_raises_no_other_error(tmp_path):
    rng = random.Random(7)
    path = tmp_path / "damaged.bin"
    valid = []
    for protocol in range(6):
        for images in ([b"\xff\xd8abc"] * 2, [np.arange(9, dtype=np.uint8), b"x"]):
            valid.append(pickle.dumps((images, [np.bool_(True)]), protocol))
    read = 0
    for _ in range(4000):
        data = bytearray(rng.choice(valid))
        for _ in range(rng.randint(1, 4)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        try:
            load_plain(bytes(data))
            path.write_bytes(data)
            read_pairs(path)
            read += 1
        except (PlainPickleError, PairsError):
            pass
    assert 0 < read < 4000


@pytest.mark.parametrize(
    "data",
    [
        b"]r\xff\xff\xff\xff.",  # pickle allocates a memo of 2 ** 32 entries
        # One text of 64 KiB, encoded 1,000 times.
        (b"X\x00\x00\x01\x00" + b"a" * 65536 + b"q\x00(")
        + b"c_codecs\nencode\nh\x00Vlatin1\n\x86R" * 1000
        + b"l.",
        b"\x80\x04\x8e" + b"\xff" * 7 + b"\x7f",
        b"(" * 100000 + b"l" * 100000 + b".",
    ],
    ids=["memo", "encode", "length", "depth"],
)
def test_a_small_file_needs_little_memory(tmp_path, data):
    path = tmp_path / "bomb.bin"
    path.write_bytes(data)
    tracemalloc.start()
    try:
        with pytest.raises(PairsError):
            read_pairs(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 32 * 2**20


# -- cost


def memoised_arrays(kind: bytes, builds: int) -> bytes:
    """Return a pickle that builds many arrays from one text of 100,000 bytes."""
    size = 100_000
    text = b"B" + size.to_bytes(4, "little") + bytes(size) + b"q\x00"
    number = size // int(kind[1:2])
    dtype = b"cnumpy\ndtype\n(U\x02" + kind + b"K\x00K\x01tR"
    minus = b"J\xff\xff\xff\xff"
    dtype += b"(K\x03U\x01>NNN" + 2 * minus + b"K\x00tbq\x01"
    head = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
    state = b"(K\x01(J" + number.to_bytes(4, "little") + b"th\x01\x89h\x00tq\x02"
    return b"\x80\x02" + text + dtype + b"](" + (head + state + b"b") + b"".join(
        head + b"h\x02b" for _ in range(builds)
    ) + b"e."  # fmt: skip


@pytest.mark.parametrize("kind", [b"b1", b"i4", b"f8"])
def test_arrays_that_share_their_data_have_a_budget(kind):
    assert len(memoised_arrays(kind, 3)) < 110_000
    load_plain(memoised_arrays(kind, 3))
    with pytest.raises(PlainPickleError, match="uses the data of its arrays repeatedly, got"):
        load_plain(memoised_arrays(kind, 5000))


def test_an_object_that_is_built_often_costs_no_quadratic_time():
    """The first BUILD replaces the object under all its memo keys, later ones replace nothing."""
    puts, builds = 2000, 1000
    unbuilt = b"cnumpy\ndtype\n(U\x02u1K\x00K\x01tR"
    keys = b"".join(b"r" + key.to_bytes(4, "little") for key in range(puts))
    again = b"h\x00" * builds
    machine = pickle_machine._Machine(b"\x80\x02" + unbuilt + keys + again + b"N.", Arrays(9999), 0)
    machine.run()
    reads = 0

    class Memo(dict):
        def __getitem__(self, key):
            nonlocal reads
            reads += 1
            return super().__getitem__(key)

    machine.memo = Memo(machine.memo)
    for _ in range(builds):
        machine.stack.append((3, "|", None, None, None, -1, -1, 0))
        machine.build(None)
        machine.stack.pop()
    assert reads <= puts
    assert {type(value) for value in machine.memo.values()} == {np.dtypes.UInt8DType}


@pytest.mark.parametrize("opcode", [b"(", b"]", b"N", b"\x88", b"]\x94"])
def test_the_number_of_opcodes_has_a_limit(monkeypatch, opcode):
    monkeypatch.setattr(pickle_machine, "_ALWAYS_READ_OPCODES", 10_000)
    load_plain(b"\x80\x02" + opcode * 5_000 + b"N.")
    with pytest.raises(PlainPickleError, match=r"got more than [\d,]+ opcodes"):
        load_plain(b"\x80\x02" + opcode * 20_000 + b"N.")
