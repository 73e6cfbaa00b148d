# SPDX-License-Identifier: Apache-2.0
"""Verification sets of every pickle protocol, and the error messages for invalid sets."""

from __future__ import annotations

import itertools
import os
import pickle
import zlib

import cv2
import mxnet as mx
import numpy as np
import pytest

from evaluation.pairs import (
    Pairs,
    PairsError,
    decode_image,
    find_sets,
    read_pairs,
    read_sets,
    write_pairs,
)

IMAGES = [b"\xff\xd8first\n'\"\\", b"second\x00\xff", b"\x80\x81third", bytes(range(256))]
ISSAME = [True, False]


def pickled(tmp_path, content, protocol=2):
    path = tmp_path / "set.bin"
    path.write_bytes(pickle.dumps(content, protocol))
    return path


def as_array(image: bytes) -> np.ndarray:
    return np.frombuffer(image, np.uint8).copy()


def as_bytes(image) -> bytes:
    return image if isinstance(image, bytes) else image.tobytes()


# -- reading


@pytest.mark.parametrize("protocol", range(6))
def test_every_protocol_and_form_gives_the_same_pairs(tmp_path, protocol):
    for convert in (bytes, as_array):
        for answers in (ISSAME, tuple(ISSAME), [np.bool_(x) for x in ISSAME], np.array(ISSAME)):
            for outer in (tuple, list):
                content = outer(([convert(image) for image in IMAGES], answers))
                pairs = read_pairs(pickled(tmp_path, content, protocol))
                assert [as_bytes(image) for image in pairs.images] == IMAGES
                assert isinstance(pairs.images[0], bytes if convert is bytes else np.ndarray)
                assert pairs.issame.dtype == np.bool_
                assert pairs.issame.tolist() == ISSAME
                assert len(pairs) == 2


@pytest.mark.parametrize("protocol", range(6))
def test_pixels_keep_their_layout(tmp_path, protocol):
    for order in "CF":
        pixels = np.arange(4 * 5 * 3, dtype=np.uint8).reshape(4, 5, 3).copy(order=order)
        pairs = read_pairs(pickled(tmp_path, ([pixels, pixels + 1], [True]), protocol))
        np.testing.assert_array_equal(pairs.images[0], pixels)
        np.testing.assert_array_equal(pairs.images[1], pixels + 1)


@pytest.mark.parametrize("protocol", range(6))
def test_an_object_of_the_memo_is_read_again(tmp_path, protocol):
    """An array enters the memo before BUILD."""
    for image in (as_array(IMAGES[0]), IMAGES[3]):
        pairs = read_pairs(pickled(tmp_path, ([image] * 4, ISSAME), protocol))
        assert [as_bytes(x) for x in pairs.images] == [as_bytes(image)] * 4


def python2_text(data: bytes) -> bytes:
    return b"S" + repr(data)[1:].encode("ascii") + b"\n"


def python2_array(image: bytes, key: int) -> bytes:
    """Protocol 0 as Python 2 and its NumPy wrote an array of uint8."""
    return (
        b"cnumpy.core.multiarray\n_reconstruct\np%d\n(cnumpy\nndarray\np%d\n(I0\ntp%d\nS'b'\np%d\n"
        b"tp%d\nRp%d\n(I1\n(I%d\ntp%d\ncnumpy\ndtype\np%d\n(S'u1'\np%d\nI0\nI1\ntp%d\nRp%d\n"
        b"(I3\nS'|'\np%d\nNNNI-1\nI-1\nI0\ntp%d\nbI00\n"
        % (*range(key, key + 6), len(image), *range(key + 6, key + 13))
        + python2_text(image)
        + b"p%d\ntp%d\nb" % (key + 13, key + 14)
    )


def python2_pickles():
    answers = b"(lp8\nI01\naI00\na"
    texts = b"".join(python2_text(image) + b"p%d\na" % i for i, image in enumerate(IMAGES, 20))
    yield "protocol 0", b"((lp0\n" + texts + answers + b"tp99\n."
    arrays = b"".join(python2_array(x, 100 * i) + b"a" for i, x in enumerate(IMAGES, 1))
    yield "protocol 0 arrays", b"((lp0\n" + arrays + answers + b"tp99\n."
    short = [b"U%c%b" % (len(x), x) for x in IMAGES[:3]] + [b"T\x00\x01\x00\x00" + IMAGES[3]]
    yield "protocol 1", b"(]q\x00(" + b"".join(short) + b"e]q\x01(I01\nI00\netq\x02."
    yield "protocol 2", b"\x80\x02]q\x00(" + b"".join(short) + b"e]q\x01(\x88\x89e\x86q\x02."
    # Protocol 2, arrays and NumPy's own booleans.
    minus = b"J\xff\xff\xff\xff"
    dtype = b"cnumpy\ndtype\n(U\x02u1K\x00K\x01tR(K\x03U\x01|NNN" + 2 * minus + b"K\x00tb"
    head = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
    arrays = b"".join(
        head + b"(K\x01M" + len(x).to_bytes(2, "little") + b"\x85" + dtype + b"\x89" + y + b"tb"
        for x, y in zip(IMAGES, short)
    )
    scalar = b"cnumpy.core.multiarray\nscalar\n" + dtype.replace(b"u1", b"b1") + b"U\x01%c\x86R"
    answers = b"](" + scalar % 1 + scalar % 0 + b"e"
    yield "protocol 2 arrays", b"\x80\x02](" + arrays + b"e" + answers + b"\x86."


@pytest.mark.parametrize("data", [x[1] for x in python2_pickles()], ids=lambda _: "")
def test_str_of_python_2_is_read_as_bytes(tmp_path, data):
    path = tmp_path / "lfw.bin"
    path.write_bytes(data)
    # Python reads the handmade pickle as intended.
    images, answers = pickle.loads(data, encoding="bytes")
    assert [as_bytes(image) for image in images] == IMAGES
    assert [bool(x) for x in answers] == ISSAME
    pairs = read_pairs(path)
    assert [as_bytes(image) for image in pairs.images] == IMAGES
    assert pairs.issame.tolist() == ISSAME


@pytest.mark.parametrize("protocol", range(6))
def test_encoded_arrays_are_rows_or_columns(tmp_path, protocol):
    for shape, order in itertools.product([(-1,), (-1, 1), (1, -1)], "CF"):
        images = [as_array(image).reshape(shape).copy(order=order) for image in IMAGES]
        pairs = read_pairs(pickled(tmp_path, (images, ISSAME), protocol))
        assert [as_bytes(image) for image in pairs.images] == IMAGES
        assert {image.ndim for image in pairs.images} == {1}


@pytest.mark.parametrize("protocol", range(6))
def test_answers_are_booleans_or_0_and_1(tmp_path, protocol):
    for answers in (
        [1, 0],
        (1, 0),
        [True, 0],
        [np.int64(1), np.uint8(0)],
        *(np.array([1, 0], f"{kind}{size}") for kind in "iu" for size in (1, 2, 4, 8)),
        np.array([1, 0], ">i4"),
        np.array([[1], [0]]),
        np.array([[1, 0]]),
        np.array([[True], [False]]),
    ):
        pairs = read_pairs(pickled(tmp_path, (IMAGES, answers), protocol))
        assert pairs.issame.dtype == np.bool_
        assert pairs.issame.tolist() == ISSAME


# -- writing


def test_written_sets_have_the_format_of_insightface(tmp_path):
    path = tmp_path / "a.bin"
    write_pairs(path, IMAGES, ISSAME)
    data = path.read_bytes()
    assert data[:2] == b"\x80\x02"
    assert pickle.loads(data, encoding="bytes") == (IMAGES, ISSAME)
    assert read_pairs(path).images == IMAGES
    assert os.listdir(tmp_path) == ["a.bin"]


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "a.bin"
    write_pairs(path, IMAGES, ISSAME)

    def fail(_):
        raise OSError("no space left")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="no space"):
        write_pairs(path, IMAGES[::-1], ISSAME)
    assert read_pairs(path).images == IMAGES
    assert os.listdir(tmp_path) == ["a.bin"]


@pytest.mark.parametrize(
    "images, issame", [(IMAGES[:3], ISSAME), ([], []), ([b"a", b""], [True]), (["a", b"b"], [True])]
)
def test_an_invalid_set_is_not_written(tmp_path, images, issame):
    with pytest.raises(PairsError, match="a.bin: .*, got "):
        write_pairs(tmp_path / "a.bin", images, issame)
    assert os.listdir(tmp_path) == []


# -- invalid sets


@pytest.mark.parametrize(
    "content, problem",
    [
        ([b"a"], "pair of lists"),
        (([b"a", b"b"], [True], 1), "pair of lists"),
        (b"text", "pair of lists"),
        (None, "pair of lists"),
        ((b"ab", [True]), "images are not a list"),
        (([b"a", b"b"], True), "issame is not a list"),
        (([b"a", b"b"], [2]), "issame for pair 0"),
        (([b"a", b"b"], [-1]), "issame for pair 0"),
        (([b"a", b"b"], [None]), "issame for pair 0"),
        (([b"a", b"b"], [[1]]), "issame for pair 0"),
        (([b"a", b"b", b"c", b"d"], [1, "1"]), "issame for pair 1"),
        (([b"a", b"b", b"c", b"d"], np.array([1, 255], np.uint8)), "issame for pair 1"),
        (([b"a", b"b", b"c", b"d"], np.array([[0], [-1]])), "issame for pair 1"),
        (([b"a", b"b"], np.array([1.0])), "list of booleans"),
        (([b"a", b"b"], np.array([[True, False], [True, False]])), "list of booleans"),
        (([b"a", b"b"], np.array([])), "list of booleans"),
        (([b"a", b"b"], np.array([], bool)), "two images per pair"),
        (([b"a", b"b", b"c"], [True]), "two images per pair"),
        (([], []), "two images per pair"),
        (([b"a", b""], [True]), "image 1 of pair 0"),
        (([b"a", "b"], [True]), "image 1 of pair 0"),
        (([b"a", [b"b"]], [True]), "image 1 of pair 0"),
        (([b"a", b"b", 3, b"d"], ISSAME), "image 0 of pair 1"),
        (([b"a", np.zeros(0, np.uint8)], [True]), "image 1 of pair 0"),
        (([b"a", np.zeros(4, np.float32)], [True]), "image 1 of pair 0"),
        (([b"a", np.zeros((4, 4), np.uint8)], [True]), "image 1 of pair 0"),
        (([b"a", np.zeros((4, 4, 1), np.uint8)], [True]), "image 1 of pair 0"),
        (([b"a", np.zeros((4, 1), np.int8)], [True]), "image 1 of pair 0"),
        (([b"a", np.zeros((0, 1), np.uint8)], [True]), "image 1 of pair 0"),
    ],
)
def test_a_wrong_structure_is_refused_by_name(tmp_path, content, problem):
    path = pickled(tmp_path, content)
    with pytest.raises(PairsError) as caught:
        read_pairs(path)
    message = str(caught.value)
    assert type(caught.value) is PairsError
    assert message.startswith(f"{path}: ")
    assert problem in message
    assert ", got " in message.split(problem)[1]
    assert "\n" not in message


def test_missing_and_empty_files_and_folders_are_refused(tmp_path):
    (tmp_path / "empty.bin").touch()
    (tmp_path / "folder.bin").mkdir()
    for name, problem in [
        ("no.bin", "No such file"),
        ("empty.bin", "empty"),
        ("folder.bin", "directory"),
    ]:
        with pytest.raises(PairsError, match=f"{name}: .*{problem}"):
            read_pairs(tmp_path / name)


def test_a_wrong_answer_is_in_the_message(tmp_path):
    path = pickled(tmp_path, (IMAGES, np.array([1, 7], np.int16)))
    with pytest.raises(PairsError) as caught:
        read_pairs(path)
    assert "issame for pair 1 is not a boolean, 0 or 1, got int16 7; " in str(caught.value)


# -- decoding


def test_decoded_images_are_rgb():
    rgb = np.zeros((8, 6, 3), np.uint8)
    rgb[..., 0], rgb[..., 2] = 250, 30
    png = cv2.imencode(".png", rgb[..., ::-1])[1]
    for image in (png.tobytes(), png.ravel(), rgb):
        decoded = decode_image(image, (8, 6))
        assert decoded.dtype == np.uint8
        np.testing.assert_array_equal(decoded, rgb)


def test_grey_images_get_three_channels():
    png = cv2.imencode(".png", np.full((8, 8), 77, np.uint8))[1].tobytes()
    np.testing.assert_array_equal(decode_image(png, (8, 8)), np.full((8, 8, 3), 77))


@pytest.mark.parametrize("image", [b"no image", b"", np.zeros(0, np.uint8), b"\xff\xd8\xff"])
def test_an_undecodable_image_is_named(image):
    with pytest.raises(PairsError, match="lfw.bin: image 1 of pair 3: does not decode.*, got "):
        decode_image(image, (8, 8), "lfw.bin: image 1 of pair 3")


def with_exif(jpeg: bytes, orientation: int, at: int = 2) -> bytes:
    entry = b"\x01\x12\0\x03\0\0\0\x01\0" + bytes([orientation]) + b"\0\0"
    payload = b"Exif\0\0MM\0*\0\0\0\x08\0\x01" + entry + bytes(4)
    return jpeg[:at] + b"\xff\xe1" + (len(payload) + 2).to_bytes(2, "big") + payload + jpeg[at:]


def test_exif_orientation_is_applied_as_by_mxnet():
    pixels = np.zeros((40, 24, 3), np.uint8)
    pixels[:8, :8], pixels[-8:, :8], pixels[:8, -8:] = (255, 0, 0), (0, 255, 0), (0, 0, 255)
    jpeg = cv2.imencode(".jpg", pixels)[1].tobytes()
    # Before and after the JFIF segment; MXNet ignores Exif after it.
    for orientation, at in itertools.product(range(1, 9), (2, 20)):
        turned = with_exif(jpeg, orientation, at)
        expected = mx.image.imdecode(turned).asnumpy()
        size = (24, 40) if orientation > 4 and at == 2 else (40, 24)
        np.testing.assert_array_equal(decode_image(turned, size), expected)


def test_exif_in_a_png_is_ignored():
    png = cv2.imencode(".png", np.zeros((8, 6, 3), np.uint8))[1].tobytes()
    body = b"eXIf" + with_exif(b"", 6)[10:]
    chunk = (len(body) - 4).to_bytes(4, "big") + body + zlib.crc32(body).to_bytes(4, "big")
    assert decode_image(png[:33] + chunk + png[33:], (8, 6)).shape == (8, 6, 3)


def test_a_truncated_image_is_named_without_output_of_the_decoder(capfd):
    jpeg = cv2.imencode(".jpg", np.random.default_rng(0).integers(0, 256, (40, 24, 3)))[1]
    cut = jpeg[: len(jpeg) * 3 // 4].tobytes() + b"\xff\xd9"
    checked = []

    def cut_off(image):
        checked.append(bytes(image))
        return bytes(image) == cut

    for image in (cut, np.frombuffer(cut, np.uint8)):
        with pytest.raises(
            PairsError, match="lfw.bin: image 1 of pair 3: the image is cut off, got an end-"
        ):
            decode_image(image, (40, 24), "lfw.bin: image 1 of pair 3", cut_off)
    assert "Corrupt JPEG" not in capfd.readouterr().err
    decode_image(jpeg, (40, 24), cut_off=cut_off)
    decode_image(np.zeros((40, 24, 3), np.uint8), (40, 24), cut_off=cut_off)  # pixels need no check
    assert checked == [cut, cut, jpeg.tobytes()]


def test_an_image_of_another_size_is_refused():
    png = cv2.imencode(".png", np.zeros((8, 6, 3), np.uint8))[1].tobytes()
    with pytest.raises(PairsError, match="is not 6 pixels high and 8 pixels wide, got 8 x 6 pix"):
        decode_image(png, (6, 8))


# -- finding sets


def test_sets_are_found_in_files_and_folders(tmp_path):
    for name in ("b", "a"):
        write_pairs(tmp_path / f"{name}.bin", IMAGES, ISSAME)
    (tmp_path / "notes.txt").touch()
    (tmp_path / "other").mkdir()
    write_pairs(tmp_path / "other" / "c.v2.bin", IMAGES, ISSAME)
    found = find_sets([str(tmp_path / "other" / "c.v2.bin"), tmp_path])
    assert list(found) == ["c.v2", "a", "b"]
    assert found["a"] == str(tmp_path / "a.bin")
    sets = read_sets([tmp_path])
    assert list(sets) == ["a", "b"]
    assert isinstance(sets["a"], Pairs)


def test_missing_and_duplicate_sets_are_refused(tmp_path):
    (tmp_path / "x").mkdir()
    write_pairs(tmp_path / "a.bin", IMAGES, ISSAME)
    write_pairs(tmp_path / "x" / "a.bin", IMAGES, ISSAME)
    (tmp_path / "empty").mkdir()
    for entries, problem in [
        ([], "at least one file or folder"),
        ([tmp_path / "empty"], "holds no .bin"),
        ([tmp_path / "no.bin"], "must be a file or a folder, got neither"),
        ([tmp_path, tmp_path / "x"], "'a' is in use already"),
        ([tmp_path / "a.bin", tmp_path / "a.bin"], "'a' is in use already"),
    ]:
        with pytest.raises(PairsError, match=problem):
            find_sets(entries)
