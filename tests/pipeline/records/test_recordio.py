# SPDX-License-Identifier: Apache-2.0
"""Lines of an .idx, valid and damaged, and frames of a record."""

from __future__ import annotations

import struct
import warnings

import numpy as np
import pytest

from pipeline.records import recordio
from pipeline.records.mapped import RecordError
from pipeline.records.recordio import (
    MAGIC,
    RecordFile,
    check_index,
    count_bytes_after,
    frames,
    map_rec,
    read_headers,
    read_index,
)

GOOD = "".join(f"{key}\t{key * 48}\n" for key in range(30_000)).encode()


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    monkeypatch.setattr(recordio, "_CHUNK_BYTES", 1 << 16)


@pytest.fixture
def idx(tmp_path):
    return tmp_path / "train.idx"


def refusal(idx, content: bytes) -> str:
    idx.write_bytes(content)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(RecordError) as caught:
            read_index(idx)
    return str(caught.value)


@pytest.mark.parametrize(
    "end",
    [
        b"",
        b"\n",
        b"\n\n\n",
        b"\r\n",
        b"\r\n\r\n",
        b"  \n\t\n ",
        pytest.param(b"\n" * 200_000, id="many"),
        b" \v\f\n",
    ],
)
def test_blank_lines_at_the_end_are_ignored(idx, end):
    for text in (GOOD.removesuffix(b"\n"), GOOD.removesuffix(b"\n").replace(b"\n", b"\r\n")):
        idx.write_bytes(text + end)
        keys, offsets = read_index(idx)
        assert keys.tolist() == list(range(30_000))
        assert (offsets == 48 * keys).all()


def test_spaces_and_leading_zeros_are_allowed(idx):
    idx.write_bytes(b"1 0\n2   48\n003\t 096 \n4\t144\n")
    keys, offsets = read_index(idx)
    assert keys.tolist() == [1, 2, 3, 4] and offsets.tolist() == [0, 48, 96, 144]


@pytest.mark.parametrize("number", [1, 2, 15_000, 29_999, 30_000])
@pytest.mark.parametrize(
    "line",
    [
        b"17",
        b"17\t816\t5",
        b"17816",
        b"\t816",
        b"17\t",
        b"17\t816.0",
        b"17.5\t816",
        b"0x11\t816",
        b"17\t0x330",
        b"17\t1e3",
        b"-17\t816",
        b"17\t-816",
        b"17\tx",
        b"17,816",
        b"17\t81\x006",
        b"17\t816\x00",
        b"\x00\x00\x00\x00",
        b"17\tnan",
        b"17\t8_16",
        "17\t٣".encode(),
        b"\xff\xfe\x00",
    ],
)
def test_a_damaged_line_is_refused_by_number_and_text(idx, number, line):
    lines = GOOD.split(b"\n")
    lines[number - 1] = line
    message = refusal(idx, b"\n".join(lines))
    assert message == (
        f"{idx}: line {number} is not a key, a tab and an offset, got "
        f"{repr(line if number < 30_000 else line.rstrip())[1:]}; the file is damaged or is not "
        "an index, make or copy it again"
    )
    assert message.isascii() and message.isprintable()


@pytest.mark.parametrize("number", [1, 15_000, 29_999])
@pytest.mark.parametrize("line", [b"", b"  ", b"\r"])
def test_a_blank_line_between_others_is_refused(idx, number, line):
    lines = GOOD.split(b"\n")
    lines[number - 1] = line
    assert f"line {number} is not a key, a tab and an offset, got '" in refusal(
        idx, b"\n".join(lines)
    )


def test_a_line_of_three_numbers_before_a_line_of_one_is_refused(idx):
    lines = GOOD.split(b"\n")
    lines[700], lines[20_000] = b"700\t33600\t9", b"20000"
    assert refusal(idx, b"\n".join(lines)).startswith(
        f"{idx}: line 701 is not a key, a tab and an offset, got '700\\t33600\\t9'; "
    )


def test_a_message_shortens_a_long_line(idx):
    message = refusal(idx, GOOD + b"x" * 300_000)
    assert message == (
        f"{idx}: line 30001 is not a key, a tab and an offset, got '{'x' * 40}'...; the file is "
        "damaged or is not an index, make or copy it again"
    )


@pytest.mark.parametrize("content", [b"", b"\n\n", b" \r\n"])
def test_an_idx_without_lines_is_refused(idx, content):
    assert refusal(idx, content) == (
        f"{idx}: holds no line of key, tab, offset, got {len(content)} bytes; make or copy it again"
    )


@pytest.mark.parametrize(
    ("key", "offset"),
    [
        ("5", str(2**64 - 1)),
        ("5", str(2**63)),
        (str(2**63), "48"),
        (str(2**64 + 5), str(2**64 + 48)),
        ("5", "9" * 30),
    ],
)
def test_numbers_above_int64_are_refused(idx, key, offset):
    lines = GOOD.split(b"\n")
    lines[20_000] = f"{key}\t{offset}".encode()
    assert refusal(idx, b"\n".join(lines)) == (
        f"{idx}: line 20001 has key {key} and offset {offset}, got a number above {2**63 - 1}; "
        "the file is damaged, make or copy it again"
    )


def test_a_message_shortens_a_long_number(idx):
    message = refusal(idx, b"5\t" + b"9" * 100_000 + b"\n")
    assert f"line 1 has key 5 and offset {'9' * 40}..., got" in message and len(message) < 400


@pytest.mark.parametrize("offset", [2**63 - 1, 2**63 - 32, 2**63 - 64, 10**12, 969, 1000])
def test_an_offset_beyond_the_rec_is_refused(idx, offset):
    idx.write_text(f"0\t0\n7\t{offset}\n")
    rec, data = idx.with_suffix(".rec"), np.zeros(1000, np.uint8)
    data[:4] = np.frombuffer(MAGIC.to_bytes(4, "little"), np.uint8)
    with pytest.raises(RecordError) as caught:
        check_index(RecordFile(rec, idx, data, *read_index(idx)))
    assert str(caught.value) == (
        f"{rec}: ends before the record of key 7 (offset {offset}), got 1000 bytes; the .rec is "
        "truncated or train.idx belongs to another .rec"
    )


def test_the_largest_key_is_read(idx):
    idx.write_text(f"{2**63 - 1}\t0\n0\t48\n")
    assert [column.tolist() for column in read_index(idx)] == [[0, 2**63 - 1], [48, 0]]


def test_a_label_that_is_nan_gives_no_warning():
    record = np.zeros(40, np.uint8)
    record[12:16] = record[32:36] = record[36:40] = (1, 0, 0x80, 0x7F)  # signalling NaN
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        headers = read_headers(record, np.array([0]))
    assert np.isnan(headers.label[0])


def frame(cflag: int, size: int) -> bytes:
    return struct.pack("<II", MAGIC, cflag << 29 | size) + bytes(-(-size // 4) * 4)


def test_frames_end_with_their_record():
    record, more = frame(1, 6) + frame(2, 0) + frame(3, 5), frame(0, 3)
    data = np.frombuffer(record + more, np.uint8)
    assert list(frames(data, 0)) == [(1, 8, 6, 16), (2, 24, 0, 24), (3, 32, 5, 40)]
    assert list(frames(data, 40)) == [(0, 48, 3, 52)]
    assert count_bytes_after(data, 0) == len(more) and count_bytes_after(data, 40) == 0
    for cut in (data[:20], np.append(data[:16], np.zeros(24, np.uint8))):  # truncated or damaged
        assert list(frames(cut, 0)) == [(1, 8, 6, 16)]
        assert count_bytes_after(cut, 0) == len(cut) - 16
    assert list(frames(data[:7], 0)) == []


@pytest.mark.parametrize("read", [map_rec, read_index])
def test_a_file_that_cannot_be_read_is_named(tmp_path, read):
    with pytest.raises(RecordError) as caught:
        read(tmp_path)
    assert str(caught.value) == (
        f"{tmp_path}: cannot be read, got Is a directory; make it readable"
    )


def test_lines_that_exchange_keys_and_offsets_are_refused(idx):
    assert refusal(idx, b"4\t0\n8\t48\t144\n96\n12\t144\n") == (
        f"{idx}: line 2 is not a key, a tab and an offset, got '8\\t48\\t144'; the file is damaged "
        "or is not an index, make or copy it again"
    )
    assert refusal(idx, b"8\t96\t144\n192\n").startswith(
        f"{idx}: line 1 is not a key, a tab and an offset, got '8\\t96\\t144'; "
    )
