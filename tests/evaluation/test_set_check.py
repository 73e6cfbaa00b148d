# SPDX-License-Identifier: Apache-2.0
"""Checks of verification sets before evaluation."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from evaluation import set_check
from evaluation.pairs import Pairs, PairsError, decode_image
from evaluation.set_check import check_sets

SIZE = (24, 20)


def encoded(size=SIZE, extension=".jpg", seed=0) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    return cv2.imencode(extension, pixels)[1].tobytes()


def make_set(pairs=10, **changed) -> Pairs:
    """Return a set with alternating answers; ``i7=image`` replaces image 7."""
    images = [encoded(seed=i) for i in range(2 * pairs)]
    for name, image in changed.items():
        images[int(name[1:])] = image
    return Pairs(images, np.arange(pairs) % 2 == 0, path="sets/toy.bin")


def refusal(pairs: Pairs, size=SIZE) -> str:
    with pytest.raises(PairsError) as caught:
        check_sets({"good": make_set(), "toy": pairs}, size)
    sentence = str(caught.value)
    assert sentence.startswith("sets/toy.bin: ") and "\n" not in sentence
    return sentence


def rotated(image: bytes) -> bytes:
    """Add an EXIF orientation of 90 degrees to a JPEG."""
    body = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"
    return image[:2] + b"\xff\xe1" + (len(body) + 2).to_bytes(2, "big") + body + image[2:]


def test_valid_sets_pass():
    pixels = np.zeros((*SIZE, 3), np.uint8)
    row = np.frombuffer(encoded(), np.uint8)
    others = {"i1": pixels, "i2": row, "i3": encoded(extension=".png"), "i19": rotated(encoded())}
    others["i4"], others["i19"] = encoded(extension=".webp"), rotated(encoded(SIZE[::-1]))
    check_sets({"toy": make_set(**others)}, SIZE)
    check_sets({}, SIZE)


@pytest.mark.parametrize("index", [0, 7, 19])
@pytest.mark.parametrize(
    "image, found",
    [
        (encoded((160, 160)), "160 x 160"),
        (encoded(SIZE[::-1]), "20 x 24"),
        (encoded((24, 21), ".png"), "24 x 21"),
        (np.frombuffer(encoded((23, 20)), np.uint8), "23 x 20"),
        (np.zeros((30, 20, 3), np.uint8), "30 x 20"),
        (encoded((25, 20), ".bmp"), "25 x 20"),
        (rotated(encoded()), "20 x 24"),
    ],
    ids=["jpeg", "transposed", "png", "array", "pixels", "bmp", "rotated"],
)
def test_an_image_of_another_size_is_refused(index, image, found):
    assert refusal(make_set(**{f"i{index}": image})) == (
        f"sets/toy.bin: image {index % 2} of pair {index // 2}: the image is not 24 pixels high "
        f"and 20 pixels wide, got {found} pixels; align the verification set to the network's "
        "image size"
    )


@pytest.mark.parametrize("extension", [".jpg", ".png"])
def test_an_image_without_an_end_is_refused(extension):
    whole = encoded(extension=extension)
    for cut in (len(whole) - 1, len(whole) - 2, len(whole) * 3 // 4):
        assert refusal(make_set(i13=whole[:cut])) == (
            f"sets/toy.bin: image 1 of pair 6: the image is cut off, got {cut} bytes without an "
            "end marker; download or make the verification set again"
        )
    cut_off = np.frombuffer(whole[:-2], np.uint8)
    assert "image 1 of pair 6: the image is cut off, got" in refusal(make_set(i13=cut_off))
    check_sets({"toy": make_set(i13=whole + bytes(3))}, SIZE)


@pytest.mark.parametrize("image", [b"\xff\xd8 no image", b"text", encoded()[:30], b"\0"])
def test_an_image_without_a_header_is_decoded(image):
    sentence = refusal(make_set(i11=image))
    assert sentence.startswith("sets/toy.bin: image 1 of pair 5: does not decode as an image, got ")


def test_one_image_of_each_set_is_decoded(monkeypatch):
    decoded = []

    def watch(image, image_size, where):
        decoded.append(where)
        return decode_image(image, image_size, where)

    monkeypatch.setattr(set_check, "decode_image", watch)
    check_sets({"good": make_set(), "toy": make_set()}, SIZE)
    assert decoded == ["sets/toy.bin: image 0 of pair 0"] * 2
    no_tables = encoded().replace(b"\xff\xdb", b"\xff\xfe")  # comments in place of the tables
    assert "image 0 of pair 0: does not decode" in refusal(make_set(i0=no_tables))


@pytest.mark.parametrize("pairs", [1, 9])
def test_fewer_pairs_than_folds_are_refused(pairs):
    assert refusal(make_set(pairs)) == (
        f"sets/toy.bin: verification with 10 folds needs at least 10 pairs, got {pairs} pairs; "
        "name a larger verification set"
    )


@pytest.mark.parametrize("same, kind", [(True, "same-person"), (False, "different-person")])
def test_pairs_of_one_kind_are_refused(same, kind):
    images = make_set().images
    assert refusal(Pairs(images, np.full(10, same), "sets/toy.bin")) == (
        "sets/toy.bin: a verification set needs same-person and different-person pairs, got only "
        f"{kind} pairs (10); name a set with pairs of both kinds"
    )


def test_an_enormous_image_is_refused_before_anything_decodes_it(monkeypatch):
    image = bytearray(encoded(extension=".png"))
    image[16:24] = (30_000).to_bytes(4, "big") * 2
    rotated_size = bytearray(rotated(encoded(SIZE[::-1])))
    frame = rotated_size.index(b"\xff\xc0")
    rotated_size[frame + 5 : frame + 9] = (30_000).to_bytes(2, "big") + (20_000).to_bytes(2, "big")
    monkeypatch.setattr("evaluation.pairs.decode", lambda image: pytest.fail("decoded"))
    for huge, found in ((bytes(image), "30000 x 30000"), (bytes(rotated_size), "30000 x 20000")):
        for call in (
            lambda huge=huge: check_sets({"set": Pairs([huge] * 40, np.arange(20) % 2 == 0)}, SIZE),
            lambda huge=huge: decode_image(huge, SIZE),
        ):
            with pytest.raises(PairsError, match=f"the image is not .*, got {found} pixels"):
                call()


def test_an_image_of_many_pairs_is_checked_once(monkeypatch):
    checked = []
    monkeypatch.setattr(set_check, "_check_image", lambda *arguments: checked.append(arguments))
    image = encoded()
    check_sets({"set": Pairs([image] * 40, np.arange(20) % 2 == 0)}, SIZE)
    assert len(checked) == 1
