# SPDX-License-Identifier: Apache-2.0
"""The compiled decoder: the pixels of libjpeg-turbo, or none.

OpenCV and DALI both decode with libjpeg-turbo.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import mmap
import os
import threading
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

import ops
from ops.build import LEVELS
from ops.jpeg_decoder import CUT_OFF
from pipeline.decode.dali import MEAN, STD, DecodeGraph
from pipeline.sampling.augmentation import NO_AUGMENTATION
from tests.ops.levels import check_at

ROOT = Path(__file__).resolve().parents[2]
SAMPLINGS = {
    "4:4:4": cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444,
    "4:2:2": cv2.IMWRITE_JPEG_SAMPLING_FACTOR_422,
    "4:4:0": cv2.IMWRITE_JPEG_SAMPLING_FACTOR_440,
    "4:2:0": cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420,
}
# Multiples of a MCU and not, smaller than one, wider than any vector, of planes not aligned.
SIZES = [(112, 112), (1, 5), (8, 8), (9, 6), (16, 17), (113, 111), (40, 200), (3, 650), (130, 24)]
MUTATIONS = 4000
LEFT, TAKEN, CUT = "left", "taken", "cut off"
PLANES = {"mean": MEAN, "std": STD, "holder": None}


def picture(size, kind, seed=0):
    """Return a picture: noise, a smooth one, or black and white edges, which ring beyond both."""
    random = np.random.default_rng(seed)
    height, width = size
    if kind == "noise":
        return random.integers(0, 256, (height, width, 3), dtype=np.uint8)
    if kind == "edges":
        return (random.random((height, width, 3)) < 0.5).astype(np.uint8) * 255
    y, x = np.mgrid[:height, :width] / 25
    waves = [np.sin(x * (1 + c) + random.random()) * np.cos(y * (2 - c / 2)) for c in range(3)]
    return (127 + 120 * np.stack(waves, -1) + random.normal(0, 2, (height, width, 3))).clip(0, 255)


def encode(image, quality=95, sampling="4:2:0", **options):
    named = {"progressive": cv2.IMWRITE_JPEG_PROGRESSIVE, "optimize": cv2.IMWRITE_JPEG_OPTIMIZE}
    named["restart"] = cv2.IMWRITE_JPEG_RST_INTERVAL
    flags = [cv2.IMWRITE_JPEG_QUALITY, quality]
    flags += [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, SAMPLINGS.get(sampling, sampling)]
    for name, value in options.items():
        flags += [named[name], int(value)]
    done, jpeg = cv2.imencode(".jpg", image.astype(np.uint8), flags)
    assert done
    return jpeg.tobytes()


def libjpeg(jpeg):
    """Return the pixels (H, W, 3) that OpenCV gives, None for none."""
    flags = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    found = cv2.imdecode(np.frombuffer(jpeg, np.uint8), flags) if jpeg else None
    return None if found is None else found[:, :, ::-1]


def by_dali(jpegs):
    graph = DecodeGraph(len(jpegs), "cpu", 1, 1, None, NO_AUGMENTATION, finish="bytes")
    graph.feed([np.frombuffer(jpeg, np.uint8) for jpeg in jpegs], None)
    return np.array(graph.take().as_tensor())


def placed(jpegs):
    """Return what holds pictures, their addresses and their sizes."""
    arrays = [np.frombuffer(jpeg, np.uint8) for jpeg in jpegs]
    addresses = np.array([array.ctypes.data if array.size else 0 for array in arrays])
    return arrays, addresses, np.array([array.size for array in arrays])


def decoded(jpegs, size, threads=1):
    """Return pixels (N, H, W, 3), 77 where none were written, and the places of those left."""
    decoder = ops.loader_kernels().decoder(threads)
    held, addresses, sizes = placed(jpegs)
    out = np.full((len(jpegs), *size, 3), 77, np.uint8)
    left = decoder.wait(decoder.to_pixels(addresses, sizes, size, out, held))
    decoder.close()
    return out, left.tolist()


def judged(jpegs, size):
    """Return what becomes of each: 0 decoded, 1 left, CUT_OFF."""
    decoder = ops.loader_kernels().decoder(1)
    held, addresses, sizes = placed(jpegs)
    started = decoder.to_pixels(
        addresses, sizes, size, np.empty((len(jpegs), *size, 3), np.uint8), held
    )
    decoder.wait(started)
    decoder.close()
    return started.outcomes.tolist()


def planes_of(jpegs, size, mirror, shift=0, threads=1):
    """Return planes (N, 3, H, W), in an array that begins so many values behind 64 bytes."""
    decoder = ops.loader_kernels().decoder(threads)
    held, addresses, sizes = placed(jpegs)
    shape = (len(jpegs), 3, *size)
    memory = np.full(np.prod(shape) + 32, np.nan, dtype=np.float32)
    begin = -memory.ctypes.data // 4 % 16 + shift
    out = memory[begin : begin + np.prod(shape)]
    there = {"out": out.ctypes.data, "source": held, "holder": memory}
    started = decoder.to_planes(addresses, sizes, size, mirror, mean=MEAN, std=STD, **there)
    assert not len(decoder.wait(started))
    decoder.close()
    rest = np.delete(memory, np.arange(begin, begin + np.prod(shape)))
    assert np.isnan(rest).all()  # nothing beside it
    return out.reshape(shape)


@pytest.mark.parametrize("sampling", SAMPLINGS)
@pytest.mark.parametrize("size", SIZES)
def test_pixels_are_those_of_libjpeg_turbo(size, sampling):
    jpegs = [
        encode(picture(size, kind, seed), quality, sampling)
        for seed, kind in enumerate(("noise", "edges", "smooth"))
        for quality in (1, 30, 75, 95, 100)
    ]
    found, left = decoded(jpegs, size)
    assert not left
    for pixels, jpeg in zip(found, jpegs, strict=True):
        assert (pixels == libjpeg(jpeg)).all()
    assert (found == by_dali(jpegs)).all()


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("shift", [0, 1, 8])
def test_planes_are_the_pixels_mirrored_and_normalised(size, shift):
    jpegs = [encode(picture(size, "smooth", seed)) for seed in range(6)]
    mirror = np.array([False, True] * 3)
    pixels = np.stack([libjpeg(jpeg) for jpeg in jpegs]).astype(np.float64)
    pixels[mirror] = pixels[mirror][:, :, ::-1]
    expected = ((pixels - MEAN) / STD).transpose(0, 3, 1, 2).astype(np.float32)
    assert (planes_of(jpegs, size, mirror, shift) == expected).all()


@pytest.mark.parametrize("options", [{"restart": 1}, {"restart": 5}, {"optimize": True}])
@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_restarts_and_tables_of_their_own(options, sampling):
    size = (113, 111)
    jpegs = [encode(picture(size, "smooth", s), 90, sampling, **options) for s in range(3)]
    # The tables of the last picture are not those of the next.
    jpegs = [j for jpeg in jpegs for j in (jpeg, encode(picture(size, "noise"), 50, sampling))]
    found, left = decoded(jpegs, size)
    assert not left
    for pixels, jpeg in zip(found, jpegs, strict=True):
        assert (pixels == libjpeg(jpeg)).all()


@pytest.mark.parametrize("size", SIZES)
def test_grey_pictures(size):
    jpegs = [encode(picture(size, kind)[:, :, 0], 80) for kind in ("noise", "smooth")]
    found, left = decoded(jpegs, size)
    assert not left
    assert (found == np.stack([libjpeg(jpeg) for jpeg in jpegs])).all()
    assert (found == by_dali(jpegs)).all()


def segments(jpeg):
    """Return [(marker, place, length with the marker)] up to the scan."""
    at, found = 2, []
    while True:
        length = 2 + int.from_bytes(jpeg[at + 2 : at + 4], "big")
        found.append((jpeg[at + 1], at, length))
        if jpeg[at + 1] == 0xDA:
            return found
        at += length


def segment_of(jpeg, marker):
    return next(found for found in segments(jpeg) if found[0] == marker)


def inserted(jpeg, marker, payload, at=2):
    return (
        jpeg[:at]
        + bytes([0xFF, marker])
        + (len(payload) + 2).to_bytes(2, "big")
        + payload
        + (jpeg[at:])
    )


def without(jpeg, marker):
    _, at, length = segment_of(jpeg, marker)
    return jpeg[:at] + jpeg[at + length :]


def changed(jpeg, marker, place, value):
    """Return a JPEG with another byte at some place of a segment's payload."""
    _, at, _ = segment_of(jpeg, marker)
    return jpeg[: at + 4 + place] + bytes([value]) + jpeg[at + 5 + place :]


def exif(orientation):
    """Return the payload of an APP1 segment."""
    entry = b"\x01\x12\0\x03\0\0\0\x01\0" + bytes([orientation]) + b"\0\0"
    return b"Exif\0\0MM\0*\0\0\0\x08\0\x01" + entry + bytes(4)


ADOBE = b"Adobe" + bytes([0, 100, 0, 0, 0, 0])
KINDS = {
    "as it comes": (lambda j: j, TAKEN),
    "Exif, turned": (lambda j: inserted(j, 0xE1, exif(6)), LEFT),
    "Exif, upright": (lambda j: inserted(j, 0xE1, exif(1)), TAKEN),
    "Exif behind JFIF": (lambda j: inserted(j, 0xE1, exif(6), at=20), TAKEN),
    "Exif behind another APP1": (
        lambda j: inserted(inserted(j, 0xE1, exif(6)), 0xE1, b"http://ns.adobe.com/xap/1.0/\0"),
        TAKEN,
    ),
    "comment": (lambda j: inserted(j, 0xFE, b"\xff\xd9\xff\xda"), TAKEN),
    "filled markers": (lambda j: j[:2] + b"\xff\xff\xff" + j[2:], TAKEN),
    "something behind": (lambda j: j + b"\xff\xd8 what else", TAKEN),
    "zeros behind": (lambda j: j + bytes(100), TAKEN),
    "no JFIF": (lambda j: without(j, 0xE0), TAKEN),
    "Adobe's YCbCr": (lambda j: inserted(without(j, 0xE0), 0xEE, ADOBE + b"\1"), TAKEN),
    "Adobe's RGB": (lambda j: inserted(without(j, 0xE0), 0xEE, ADOBE + b"\0"), LEFT),
    "named R, G, B": (
        lambda j: (
            lambda k: changed(
                *(changed(changed(k, 0xC0, 6, ord("R")), 0xC0, 9, ord("G")), 0xC0, 12, ord("B"))
            )
        )(changed(*(changed(changed(without(j, 0xE0), 0xDA, 1, 82), 0xDA, 3, 71), 0xDA, 5, 66))),
        LEFT,
    ),
    "extended": (lambda j: j.replace(b"\xff\xc0", b"\xff\xc1", 1), TAKEN),
    "progressive": (lambda j: encode(libjpeg(j), progressive=True), LEFT),
    "4:1:1": (lambda j: encode(libjpeg(j), sampling=0x411111), LEFT),
    "other size": (lambda j: encode(libjpeg(j)[:-1]), LEFT),
    "PNG": (lambda j: cv2.imencode(".png", libjpeg(j))[1].tobytes(), LEFT),
    "no end": (lambda j: j[:-2], LEFT),
    "half an end": (lambda j: j[:-1], LEFT),
    "cut off": (lambda j: j[: len(j) // 2], LEFT),
    "cut off in front": (lambda j: j[:100], LEFT),
    "a byte too many": (lambda j: j[:-2] + b"\0" + j[-2:], LEFT),
    "codes missing": (lambda j: j[: len(j) // 2] + b"\xff\xd9", CUT),
    "codes missing, Exif, turned": (
        lambda j: inserted(j[: len(j) // 2] + b"\xff\xd9", 0xE1, exif(6)),
        LEFT,
    ),
    "codes missing, progressive": (
        lambda j: encode(libjpeg(j), progressive=True)[: len(j) // 2] + b"\xff\xd9",
        LEFT,
    ),
    "a second scan": (lambda j: j[:-2] + j[segment_of(j, 0xDA)[1] :], LEFT),
    "no frame": (lambda j: without(j, 0xC0), LEFT),
    "no tables": (lambda j: without(j, 0xC4), LEFT),
    "no quantisation": (lambda j: without(j, 0xDB), LEFT),
    "restarts that do not come": (lambda j: inserted(j, 0xDD, b"\0\2"), LEFT),
    "12 bits": (lambda j: changed(j, 0xC0, 0, 12), LEFT),
    "16-bit quantisation": (lambda j: changed(j, 0xDB, 0, 0x10), LEFT),
    "zeros": (lambda j: bytes(len(j)), LEFT),
    "two bytes": (lambda j: j[:2], LEFT),
    "nothing": (lambda j: b"", LEFT),
}


@pytest.mark.parametrize("name", KINDS)
def test_what_is_taken_and_what_is_left(name):
    make, outcome = KINDS[name]
    face = encode(picture((112, 112), "smooth"))
    jpeg = make(face)
    found, left = decoded([face, jpeg, face], (112, 112))
    assert left == ([] if outcome == TAKEN else [1])
    assert judged([jpeg], (112, 112)) == [{TAKEN: 0, LEFT: 1, CUT: CUT_OFF}[outcome]]
    assert (found[[0, 2]] == libjpeg(face)).all()  # neighbours are not touched
    if outcome == TAKEN:
        assert (found[1] == libjpeg(jpeg)).all()
        assert (found[1] == by_dali([jpeg])[0]).all()


@pytest.mark.parametrize("options", [{}, {"restart": 1}, {"restart": 5}, {"optimize": True}])
@pytest.mark.parametrize("sampling", [*SAMPLINGS, "grey"])
def test_every_cut_among_the_codes_is_seen(options, sampling):
    size = (40, 48)
    image = picture(size, "noise")
    whole = (
        encode(image[:, :, 0], 90, **options)
        if sampling == "grey"
        else encode(image, 90, sampling, **options)
    )
    _, at, length = segment_of(whole, 0xDA)
    cuts = [whole[:end] + b"\xff\xd9" for end in range(at + length, len(whole) - 2)]
    assert judged(cuts, size) == [CUT_OFF] * len(cuts)
    assert all(map(ops.loader_kernels().is_cut_off, cuts))
    turned = [inserted(cut, 0xE1, exif(8)) for cut in cuts[::50]]
    assert all(map(ops.loader_kernels().is_cut_off, turned))  # of any size, turned or not
    for sound in (whole, inserted(whole, 0xE1, exif(8)), whole + bytes(9), whole + b"\xff\xd9"):
        assert not ops.loader_kernels().is_cut_off(sound)
        assert not ops.loader_kernels().is_cut_off(np.frombuffer(sound, np.uint8))


def test_only_what_libjpeg_turbo_warns_of_is_called_cut_off(capfd):
    random, size = np.random.default_rng(5), (40, 48)
    originals = [
        encode(picture(size, "smooth"), 80, sampling, **options)
        for sampling in SAMPLINGS
        for options in ({}, {"restart": 2}, {"optimize": True})
    ]
    damaged = []
    for number in range(MUTATIONS):
        jpeg = bytearray(originals[number % len(originals)])
        for _ in range(random.integers(1, 4)):
            jpeg[random.integers(2, len(jpeg))] = random.choice([0, 255, random.integers(256)])
        damaged.append(bytes(jpeg))
    called = [j for j, what in zip(damaged, judged(damaged, size), strict=True) if what == CUT_OFF]
    assert len(called) > 50
    for jpeg in called:
        capfd.readouterr()
        libjpeg(jpeg)
        assert "Corrupt JPEG data" in capfd.readouterr().err
    assert all(map(ops.loader_kernels().is_cut_off, called))


def test_what_is_no_jpeg_is_not_cut_off():
    random = np.random.default_rng(0)
    png = cv2.imencode(".png", picture((8, 8), "smooth"))[1].tobytes()
    front = b"\xff\xd8\xff"
    for data in (b"", b"\xff", b"\xff\xd8", front, front + b"\xc0", png, bytes(100)):
        assert not ops.loader_kernels().is_cut_off(data)
    for _ in range(1000):
        ops.loader_kernels().is_cut_off(front + random.bytes(60))


def test_a_damaged_picture_is_left_or_decoded_as_libjpeg_turbo_does():
    random, size = np.random.default_rng(3), (40, 48)
    originals = [
        encode(picture(size, "smooth"), 80, sampling, **options)
        for sampling in SAMPLINGS
        for options in ({}, {"restart": 2}, {"optimize": True})
    ]
    originals.append(encode(picture(size, "smooth")[:, :, 0], 80))
    damaged = []
    for number in range(MUTATIONS):
        jpeg = bytearray(originals[number % len(originals)])
        for _ in range(random.integers(1, 4)):
            jpeg[random.integers(2, len(jpeg))] = random.choice([0, 255, random.integers(256)])
        if number % 7 == 0:
            del jpeg[random.integers(2, len(jpeg)) :]
        damaged.append(bytes(jpeg))
    found, left = decoded(damaged, size, threads=2)
    taken = sorted(set(range(MUTATIONS)) - set(left))
    assert len(taken) > MUTATIONS / 20 and len(left) > MUTATIONS / 20
    for i in taken:
        assert (found[i] == libjpeg(damaged[i])).all(), i


LEVEL = """
import numpy as np
import ops
from tests.ops.test_jpeg_decoder import *
print(ops.use("native"))
for size in SIZES:
    for sampling in SAMPLINGS:
        test_pixels_are_those_of_libjpeg_turbo(size, sampling)
    test_planes_are_the_pixels_mirrored_and_normalised(size, 0)
    test_grey_pictures(size)
for sampling in [*SAMPLINGS, "grey"]:
    test_every_cut_among_the_codes_is_seen({"restart": 5}, sampling)
test_a_damaged_picture_is_left_or_decoded_as_libjpeg_turbo_does()
"""


@pytest.mark.parametrize("level", LEVELS)
def test_every_level_of_instructions_gives_the_same(level):
    check_at(level, LEVEL)


@pytest.mark.parametrize("threads", [1, 3])
def test_many_jobs_at_once(threads):
    size = (16, 24)
    jobs = [[encode(picture(size, "smooth", 10 * k + i)) for i in range(k)] for k in range(12)]
    decoder, under_way = ops.loader_kernels().decoder(threads), []
    for jpegs in jobs:
        held, addresses, sizes = placed(jpegs)
        out = np.zeros((len(jpegs), *size, 3), np.uint8)
        under_way.append((decoder.to_pixels(addresses, sizes, size, out, held), out, held))
    order = np.random.default_rng(threads).permutation(len(jobs))  # waited for in any order
    for k in order:
        started, out, _ = under_way[k]
        assert not len(decoder.wait(started))
        for pixels, jpeg in zip(out, jobs[k], strict=True):
            assert (pixels == libjpeg(jpeg)).all()
    decoder.close()


PATIENCE_S = 120


def threads():
    return {path.name for path in Path("/proc/self/task").iterdir()}


def gone(these):
    """Wait until threads are gone: one that was joined is still listed for a moment."""
    until = time.monotonic() + PATIENCE_S
    while threads() & these and time.monotonic() < until:
        time.sleep(0.001)
    return not threads() & these


@pytest.mark.parametrize("forgotten", [False, True])
def test_threads_end_in_the_middle_of_their_work(forgotten):
    size, before = (112, 112), threads()
    held, addresses, sizes = placed([encode(picture(size, "noise", i)) for i in range(4)] * 500)
    decoder = ops.loader_kernels().decoder(2)
    its = threads() - before
    assert len(its) == 2
    for _ in range(2):
        decoder.to_pixels(addresses, sizes, size, np.empty((2000, *size, 3), np.uint8), held)
    if not forgotten:
        decoder.close()
    del decoder
    gc.collect()
    assert gone(its)


def test_a_fork_does_not_wait_for_threads_that_it_has_not():
    decoder = ops.loader_kernels().decoder(1)
    child = os.fork()
    if not child:
        decoder.close()
        os._exit(7)
    watch = threading.Timer(PATIENCE_S, os.kill, [child, 9])
    watch.start()
    _, status = os.waitpid(child, 0)
    watch.cancel()
    assert os.waitstatus_to_exitcode(status) == 7
    decoder.close()


def test_arrays_that_do_not_fit_are_refused():
    decoder = ops.loader_kernels().decoder(1)
    held, addresses, sizes = placed([encode(picture((8, 8), "noise"))] * 2)
    for out, message in (
        (np.empty((1, 8, 8, 3), np.uint8), r"wants uint8 \(B, H, W, 3\), got uint8 \(1, 8, 8, 3\)"),
        (np.empty((2, 8, 8, 3), np.int8), r"wants uint8 \(B, H, W, 3\), got int8 "),
        (np.empty((2, 8, 8, 6), np.uint8)[..., ::2], "contiguous and may be written"),
        (np.broadcast_to(np.uint8(0), (2, 8, 8, 3)), "contiguous and may be written"),
    ):
        with pytest.raises(ValueError, match=message):
            decoder.to_pixels(addresses, sizes, (8, 8), out, held)
    out = np.empty((2, 8, 8, 3), np.uint8)
    with pytest.raises(ValueError, match="2 pictures, got 1 addresses"):
        decoder.to_pixels(addresses[:1], sizes, (8, 8), out, held)
    with pytest.raises(ValueError, match="2 pictures, got 1 mirrors"):
        decoder.to_planes(addresses, sizes, (8, 8), np.zeros(1, bool), **PLANES, out=0, source=held)
    decoder.close()


def test_a_job_is_waited_for_once_and_a_closed_decoder_takes_none():
    decoder, out = ops.loader_kernels().decoder(1), np.empty((1, 8, 8, 3), np.uint8)
    held, addresses, sizes = placed([encode(picture((8, 8), "noise"))])
    started = decoder.to_pixels(addresses, sizes, (8, 8), out, held)
    decoder.wait(started)
    with pytest.raises(KeyError):
        decoder.wait(started)
    started = decoder.to_pixels(addresses, sizes, (8, 8), out, held)
    decoder.close()
    decoder.close()
    with pytest.raises(KeyError):
        decoder.wait(started)
    with pytest.raises(RuntimeError, match="is closed"):
        decoder.to_pixels(addresses, sizes, (8, 8), out, held)


def until_asleep(thread):
    """Wait until a thread sleeps though Python's lock is free: in the library, or it has ended."""
    until, before = time.monotonic() + PATIENCE_S, []
    while thread.is_alive() and time.monotonic() < until:
        time.sleep(0.02)  # in which it would get the lock
        try:
            lines = Path(f"/proc/self/task/{thread.native_id}/status").read_text().splitlines()
        except OSError:
            return
        now = [line for line in lines if line.startswith("State") or "ctxt_switches" in line]
        if "(sleeping)" in now[0] and now == before:  # it has not run in between
            return
        before = now


def test_whoever_waits_is_told_when_the_decoder_is_closed():
    size, told, whole = (112, 112), [], []
    held, addresses, sizes = placed([encode(picture(size, "noise", i)) for i in range(4)] * 2000)
    decoder, out = ops.loader_kernels().decoder(1), np.zeros((8000, *size, 3), np.uint8)
    started = decoder.to_pixels(addresses, sizes, size, out, held)

    def wait():
        try:
            whole.append(not len(decoder.wait(started)) and bool(out[-1].any()))
        except (KeyError, RuntimeError) as error:
            told.append(error)

    waiting = threading.Thread(target=wait)
    waiting.start()
    until_asleep(waiting)
    decoder.close()
    waiting.join(PATIENCE_S)
    assert not waiting.is_alive()
    assert len(told) == 1 or whole == [True]  # on a busy machine it may have been done by then


PAGE = mmap.PAGESIZE
LIBC = ctypes.CDLL(None, use_errno=True)


@contextlib.contextmanager
def ending_at_a_page(size):
    """Yield the address of bytes behind which nothing can be read or written."""
    pages = -(-size // PAGE)
    area = mmap.mmap(-1, (pages + 1) * PAGE)
    begin = ctypes.addressof(ctypes.c_char.from_buffer(area))
    behind = ctypes.c_void_p(begin + pages * PAGE)
    assert LIBC.mprotect(behind, ctypes.c_size_t(PAGE), 0) == 0
    try:
        yield begin + pages * PAGE - size
    finally:
        assert LIBC.mprotect(behind, ctypes.c_size_t(PAGE), mmap.PROT_READ | mmap.PROT_WRITE) == 0


@pytest.mark.parametrize("sampling", SAMPLINGS)
@pytest.mark.parametrize("size", [(1, 5), (9, 6), (17, 33), (112, 112)])
def test_nothing_is_touched_behind_a_picture_and_its_result(size, sampling):
    jpeg = encode(picture(size, "smooth"), 90, sampling)
    for part in (len(jpeg), len(jpeg) - 1, len(jpeg) // 2, 200, 21, 3):
        pixels, planes = 3 * size[0] * size[1], 12 * size[0] * size[1]
        with ending_at_a_page(part) as source, ending_at_a_page(planes) as out:
            ctypes.memmove(source, jpeg, part)
            decoder, whole = ops.loader_kernels().decoder(1), part == len(jpeg)
            what = (np.array([source]), np.array([part]), size)
            started = decoder.to_planes(*what, np.ones(1, bool), **PLANES, out=out, source=None)
            assert len(decoder.wait(started)) == (not whole)
            view = (ctypes.c_uint8 * pixels).from_address(out + planes - pixels)
            last = np.frombuffer(view, np.uint8).reshape(1, *size, 3)
            assert len(decoder.wait(decoder.to_pixels(*what, last, None))) == (not whole)
            assert not whole or (last[0] == libjpeg(jpeg)).all()
            decoder.close()


def complete(jpeg):
    """Return a JPEG whose first table of 16-bit codes has one more, of ones alone."""
    _, at, length = segment_of(jpeg, 0xC4)
    table = bytearray(jpeg[at + 4 : at + 2 + length])
    counts = table[1:17]
    code = 0
    for bits, count in enumerate(counts, 1):
        code = (code << 1) if bits > 1 else 0
        code += count
    missing = (1 << 16) - code
    counts[15] += missing
    symbols = table[17 : 17 + sum(table[1:17])] + bytes([0x0F] * 0) + bytes([1] * missing)
    rest = table[17 + sum(table[1:17]) :]
    payload = bytes(table[:1]) + bytes(counts) + bytes(symbols) + bytes(rest)
    return (
        jpeg[:at]
        + b"\xff\xc4"
        + (len(payload) + 2).to_bytes(2, "big")
        + payload
        + (jpeg[at + length :])
    )


def test_a_code_of_ones_alone_is_no_code():
    jpeg = complete(encode(picture((16, 16), "smooth"), 80))
    assert libjpeg(jpeg) is None
    assert decoded([jpeg], (16, 16))[1] == [0]


def test_numbers_beyond_those_of_pictures_are_left():
    # A row of a block that a form of libjpeg shifts by two bits, and the others do not.
    jpeg = encode(picture((8, 8), "smooth")[:, :, 0], 100)
    loud = changed(jpeg, 0xDB, 2, 255)  # coefficient (0, 1)
    quiet = encode(np.tile(np.linspace(100, 130, 8), (8, 1)), 100)
    assert decoded([jpeg, quiet], (8, 8))[1] == []
    steep = encode(np.tile(np.repeat([0.0, 255.0], 4), (8, 1)), 100)
    assert decoded([changed(steep, 0xDB, 2, 255), loud], (8, 8))[1][:1] == [0]


@pytest.mark.parametrize("sampling", [0x00, 0x10, 0x55])
def test_sampling_that_cannot_be(sampling):
    jpeg = changed(encode(picture((8, 8), "smooth")[:, :, 0]), 0xC0, 7, sampling)
    assert decoded([jpeg], (8, 8))[1] == [0]


def test_giants_are_left():
    face = encode(picture((8, 8), "smooth"))
    giant = face[:-2] + bytes(400_000) + face[-2:]
    padded = face + bytes(400_000)
    assert decoded([face, giant, padded, face], (8, 8))[1] == [1, 2]
