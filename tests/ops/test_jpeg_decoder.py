# SPDX-License-Identifier: Apache-2.0
"""The compiled JPEG decoder: its pixels are those of libjpeg-turbo, or it skips the image.

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
# Multiples of an MCU and others, less than an MCU, wider than a vector, with unaligned planes.
SIZES = [(112, 112), (1, 5), (8, 8), (9, 6), (16, 17), (113, 111), (40, 200), (3, 650), (130, 24)]
MUTATIONS = 4000
SKIPPED, DECODED, CUT = "skipped", "decoded", "cut off"
PLANES = {"mean": MEAN, "std": STD, "holder": None}


def make_image(size, kind, seed=0):
    """Return pixels: noise, smooth waves, or black and white edges, which overshoot the range."""
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


def decode_with_opencv(jpeg):
    """Return the pixels (H, W, 3) of OpenCV; None if it cannot decode the JPEG."""
    flags = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    found = cv2.imdecode(np.frombuffer(jpeg, np.uint8), flags) if jpeg else None
    return None if found is None else found[:, :, ::-1]


def decode_with_dali(jpegs):
    graph = DecodeGraph(len(jpegs), "cpu", 1, 1, None, NO_AUGMENTATION, finish="bytes")
    graph.feed([np.frombuffer(jpeg, np.uint8) for jpeg in jpegs], None)
    return np.array(graph.take().as_tensor())


def in_memory(jpegs):
    """Return the arrays of some JPEGs, their addresses and their sizes."""
    arrays = [np.frombuffer(jpeg, np.uint8) for jpeg in jpegs]
    addresses = np.array([array.ctypes.data if array.size else 0 for array in arrays])
    return arrays, addresses, np.array([array.size for array in arrays])


def decoded(jpegs, size, threads=1):
    """Return pixels (N, H, W, 3), 77 where none are written, and the indices of skipped images."""
    decoder = ops.loader_kernels().decoder(threads)
    held, addresses, sizes = in_memory(jpegs)
    out = np.full((len(jpegs), *size, 3), 77, np.uint8)
    skipped = decoder.wait(decoder.to_pixels(addresses, sizes, size, out, held))
    decoder.close()
    return out, skipped.tolist()


def outcomes_of(jpegs, size):
    """Return the outcome of each JPEG: 0 decoded, 1 skipped, CUT_OFF."""
    decoder = ops.loader_kernels().decoder(1)
    held, addresses, sizes = in_memory(jpegs)
    started = decoder.to_pixels(
        addresses, sizes, size, np.empty((len(jpegs), *size, 3), np.uint8), held
    )
    decoder.wait(started)
    decoder.close()
    return started.outcomes.tolist()


def planes_of(jpegs, size, mirror, shift=0, threads=1):
    """Return planes (N, 3, H, W) whose address is ``shift`` floats above a multiple of 64 bytes."""
    decoder = ops.loader_kernels().decoder(threads)
    held, addresses, sizes = in_memory(jpegs)
    shape = (len(jpegs), 3, *size)
    memory = np.full(np.prod(shape) + 32, np.nan, dtype=np.float32)
    begin = -memory.ctypes.data // 4 % 16 + shift
    out = memory[begin : begin + np.prod(shape)]
    there = {"out": out.ctypes.data, "source": held, "holder": memory}
    started = decoder.to_planes(addresses, sizes, size, mirror, mean=MEAN, std=STD, **there)
    assert not len(decoder.wait(started))
    decoder.close()
    rest = np.delete(memory, np.arange(begin, begin + np.prod(shape)))
    assert np.isnan(rest).all()  # nothing is written outside the result
    return out.reshape(shape)


@pytest.mark.parametrize("sampling", SAMPLINGS)
@pytest.mark.parametrize("size", SIZES)
def test_pixels_are_those_of_libjpeg_turbo(size, sampling):
    jpegs = [
        encode(make_image(size, kind, seed), quality, sampling)
        for seed, kind in enumerate(("noise", "edges", "smooth"))
        for quality in (1, 30, 75, 95, 100)
    ]
    found, skipped = decoded(jpegs, size)
    assert not skipped
    for pixels, jpeg in zip(found, jpegs, strict=True):
        assert (pixels == decode_with_opencv(jpeg)).all()
    assert (found == decode_with_dali(jpegs)).all()


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("shift", [0, 1, 8])
def test_planes_are_the_pixels_mirrored_and_normalised(size, shift):
    jpegs = [encode(make_image(size, "smooth", seed)) for seed in range(6)]
    mirror = np.array([False, True] * 3)
    pixels = np.stack([decode_with_opencv(jpeg) for jpeg in jpegs]).astype(np.float64)
    pixels[mirror] = pixels[mirror][:, :, ::-1]
    expected = ((pixels - MEAN) / STD).transpose(0, 3, 1, 2).astype(np.float32)
    assert (planes_of(jpegs, size, mirror, shift) == expected).all()


@pytest.mark.parametrize("options", [{"restart": 1}, {"restart": 5}, {"optimize": True}])
@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_restart_markers_and_optimised_tables_are_decoded(options, sampling):
    size = (113, 111)
    jpegs = [encode(make_image(size, "smooth", s), 90, sampling, **options) for s in range(3)]
    # Two images in a row have different tables.
    jpegs = [j for jpeg in jpegs for j in (jpeg, encode(make_image(size, "noise"), 50, sampling))]
    found, skipped = decoded(jpegs, size)
    assert not skipped
    for pixels, jpeg in zip(found, jpegs, strict=True):
        assert (pixels == decode_with_opencv(jpeg)).all()


@pytest.mark.parametrize("size", SIZES)
def test_grey_images_are_decoded(size):
    jpegs = [encode(make_image(size, kind)[:, :, 0], 80) for kind in ("noise", "smooth")]
    found, skipped = decoded(jpegs, size)
    assert not skipped
    assert (found == np.stack([decode_with_opencv(jpeg) for jpeg in jpegs])).all()
    assert (found == decode_with_dali(jpegs)).all()


def segments(jpeg):
    """Return [(marker, offset, length with the marker)] up to the scan."""
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
    """Return a JPEG with one byte of a segment's payload replaced."""
    _, at, _ = segment_of(jpeg, marker)
    return jpeg[: at + 4 + place] + bytes([value]) + jpeg[at + 5 + place :]


def exif(orientation):
    """Return the payload of an APP1 segment."""
    entry = b"\x01\x12\0\x03\0\0\0\x01\0" + bytes([orientation]) + b"\0\0"
    return b"Exif\0\0MM\0*\0\0\0\x08\0\x01" + entry + bytes(4)


ADOBE = b"Adobe" + bytes([0, 100, 0, 0, 0, 0])
KINDS = {
    "unchanged": (lambda j: j, DECODED),
    "Exif, turned": (lambda j: inserted(j, 0xE1, exif(6)), SKIPPED),
    "Exif, upright": (lambda j: inserted(j, 0xE1, exif(1)), DECODED),
    "Exif after JFIF": (lambda j: inserted(j, 0xE1, exif(6), at=20), DECODED),
    "Exif after another APP1": (
        lambda j: inserted(inserted(j, 0xE1, exif(6)), 0xE1, b"http://ns.adobe.com/xap/1.0/\0"),
        DECODED,
    ),
    "comment": (lambda j: inserted(j, 0xFE, b"\xff\xd9\xff\xda"), DECODED),
    "filled markers": (lambda j: j[:2] + b"\xff\xff\xff" + j[2:], DECODED),
    "bytes after the end": (lambda j: j + b"\xff\xd8 trailing", DECODED),
    "zeros after the end": (lambda j: j + bytes(100), DECODED),
    "no JFIF": (lambda j: without(j, 0xE0), DECODED),
    "Adobe's YCbCr": (lambda j: inserted(without(j, 0xE0), 0xEE, ADOBE + b"\1"), DECODED),
    "Adobe's RGB": (lambda j: inserted(without(j, 0xE0), 0xEE, ADOBE + b"\0"), SKIPPED),
    "named R, G, B": (
        lambda j: (
            lambda k: changed(
                *(changed(changed(k, 0xC0, 6, ord("R")), 0xC0, 9, ord("G")), 0xC0, 12, ord("B"))
            )
        )(changed(*(changed(changed(without(j, 0xE0), 0xDA, 1, 82), 0xDA, 3, 71), 0xDA, 5, 66))),
        SKIPPED,
    ),
    "extended": (lambda j: j.replace(b"\xff\xc0", b"\xff\xc1", 1), DECODED),
    "progressive": (lambda j: encode(decode_with_opencv(j), progressive=True), SKIPPED),
    "4:1:1": (lambda j: encode(decode_with_opencv(j), sampling=0x411111), SKIPPED),
    "other size": (lambda j: encode(decode_with_opencv(j)[:-1]), SKIPPED),
    "PNG": (lambda j: cv2.imencode(".png", decode_with_opencv(j))[1].tobytes(), SKIPPED),
    "no end": (lambda j: j[:-2], SKIPPED),
    "half an end": (lambda j: j[:-1], SKIPPED),
    "cut off": (lambda j: j[: len(j) // 2], SKIPPED),
    "cut off in the header": (lambda j: j[:100], SKIPPED),
    "an extra byte": (lambda j: j[:-2] + b"\0" + j[-2:], SKIPPED),
    "codes missing": (lambda j: j[: len(j) // 2] + b"\xff\xd9", CUT),
    "codes missing, Exif, turned": (
        lambda j: inserted(j[: len(j) // 2] + b"\xff\xd9", 0xE1, exif(6)),
        SKIPPED,
    ),
    "codes missing, progressive": (
        lambda j: encode(decode_with_opencv(j), progressive=True)[: len(j) // 2] + b"\xff\xd9",
        SKIPPED,
    ),
    "a second scan": (lambda j: j[:-2] + j[segment_of(j, 0xDA)[1] :], SKIPPED),
    "no frame": (lambda j: without(j, 0xC0), SKIPPED),
    "no tables": (lambda j: without(j, 0xC4), SKIPPED),
    "no quantisation": (lambda j: without(j, 0xDB), SKIPPED),
    "missing restart markers": (lambda j: inserted(j, 0xDD, b"\0\2"), SKIPPED),
    "12 bits": (lambda j: changed(j, 0xC0, 0, 12), SKIPPED),
    "16-bit quantisation": (lambda j: changed(j, 0xDB, 0, 0x10), SKIPPED),
    "zeros": (lambda j: bytes(len(j)), SKIPPED),
    "two bytes": (lambda j: j[:2], SKIPPED),
    "nothing": (lambda j: b"", SKIPPED),
}


@pytest.mark.parametrize("name", KINDS)
def test_each_kind_of_jpeg_is_decoded_skipped_or_reported_as_cut_off(name):
    make, outcome = KINDS[name]
    face = encode(make_image((112, 112), "smooth"))
    jpeg = make(face)
    found, skipped = decoded([face, jpeg, face], (112, 112))
    assert skipped == ([] if outcome == DECODED else [1])
    assert outcomes_of([jpeg], (112, 112)) == [{DECODED: 0, SKIPPED: 1, CUT: CUT_OFF}[outcome]]
    # The other images of the job are decoded.
    assert (found[[0, 2]] == decode_with_opencv(face)).all()
    if outcome == DECODED:
        assert (found[1] == decode_with_opencv(jpeg)).all()
        assert (found[1] == decode_with_dali([jpeg])[0]).all()


@pytest.mark.parametrize("options", [{}, {"restart": 1}, {"restart": 5}, {"optimize": True}])
@pytest.mark.parametrize("sampling", [*SAMPLINGS, "grey"])
def test_every_cut_within_the_codes_is_detected(options, sampling):
    size = (40, 48)
    image = make_image(size, "noise")
    whole = (
        encode(image[:, :, 0], 90, **options)
        if sampling == "grey"
        else encode(image, 90, sampling, **options)
    )
    _, at, length = segment_of(whole, 0xDA)
    cuts = [whole[:end] + b"\xff\xd9" for end in range(at + length, len(whole) - 2)]
    assert outcomes_of(cuts, size) == [CUT_OFF] * len(cuts)
    assert all(map(ops.loader_kernels().is_cut_off, cuts))
    turned = [inserted(cut, 0xE1, exif(8)) for cut in cuts[::50]]
    assert all(map(ops.loader_kernels().is_cut_off, turned))  # it ignores Exif and the image size
    for sound in (whole, inserted(whole, 0xE1, exif(8)), whole + bytes(9), whole + b"\xff\xd9"):
        assert not ops.loader_kernels().is_cut_off(sound)
        assert not ops.loader_kernels().is_cut_off(np.frombuffer(sound, np.uint8))


def test_only_images_that_libjpeg_turbo_warns_about_are_reported_as_cut_off(capfd):
    random, size = np.random.default_rng(5), (40, 48)
    originals = [
        encode(make_image(size, "smooth"), 80, sampling, **options)
        for sampling in SAMPLINGS
        for options in ({}, {"restart": 2}, {"optimize": True})
    ]
    damaged = []
    for number in range(MUTATIONS):
        jpeg = bytearray(originals[number % len(originals)])
        for _ in range(random.integers(1, 4)):
            jpeg[random.integers(2, len(jpeg))] = random.choice([0, 255, random.integers(256)])
        damaged.append(bytes(jpeg))
    cut_off = np.flatnonzero(np.array(outcomes_of(damaged, size)) == CUT_OFF)
    assert len(cut_off) > 50
    for jpeg in (damaged[i] for i in cut_off):
        capfd.readouterr()
        decode_with_opencv(jpeg)
        assert "Corrupt JPEG data" in capfd.readouterr().err
        assert ops.loader_kernels().is_cut_off(jpeg)


def test_other_data_than_jpegs_is_not_cut_off():
    random = np.random.default_rng(0)
    png = cv2.imencode(".png", make_image((8, 8), "smooth"))[1].tobytes()
    front = b"\xff\xd8\xff"
    for data in (b"", b"\xff", b"\xff\xd8", front, front + b"\xc0", png, bytes(100)):
        assert not ops.loader_kernels().is_cut_off(data)
    for _ in range(1000):
        ops.loader_kernels().is_cut_off(front + random.bytes(60))


def test_a_damaged_image_is_skipped_or_decoded_as_libjpeg_turbo_does():
    random, size = np.random.default_rng(3), (40, 48)
    originals = [
        encode(make_image(size, "smooth"), 80, sampling, **options)
        for sampling in SAMPLINGS
        for options in ({}, {"restart": 2}, {"optimize": True})
    ]
    originals.append(encode(make_image(size, "smooth")[:, :, 0], 80))
    damaged = []
    for number in range(MUTATIONS):
        jpeg = bytearray(originals[number % len(originals)])
        for _ in range(random.integers(1, 4)):
            jpeg[random.integers(2, len(jpeg))] = random.choice([0, 255, random.integers(256)])
        if number % 7 == 0:
            del jpeg[random.integers(2, len(jpeg)) :]
        damaged.append(bytes(jpeg))
    found, skipped = decoded(damaged, size, threads=2)
    intact = sorted(set(range(MUTATIONS)) - set(skipped))
    assert len(intact) > MUTATIONS / 20 and len(skipped) > MUTATIONS / 20
    for i in intact:
        assert (found[i] == decode_with_opencv(damaged[i])).all(), i


LEVEL = """
import numpy as np
import ops
from tests.ops.test_jpeg_decoder import *
print(ops.use("native"))
for size in SIZES:
    for sampling in SAMPLINGS:
        test_pixels_are_those_of_libjpeg_turbo(size, sampling)
    test_planes_are_the_pixels_mirrored_and_normalised(size, 0)
    test_grey_images_are_decoded(size)
for sampling in [*SAMPLINGS, "grey"]:
    test_every_cut_within_the_codes_is_detected({"restart": 5}, sampling)
test_a_damaged_image_is_skipped_or_decoded_as_libjpeg_turbo_does()
"""


@pytest.mark.parametrize("level", LEVELS)
def test_every_instruction_set_gives_the_same_results(level):
    check_at(level, LEVEL)


@pytest.mark.parametrize("threads", [1, 3])
def test_many_jobs_are_in_flight_at_once(threads):
    size = (16, 24)
    jobs = [[encode(make_image(size, "smooth", 10 * k + i)) for i in range(k)] for k in range(12)]
    decoder, in_flight = ops.loader_kernels().decoder(threads), []
    for jpegs in jobs:
        held, addresses, sizes = in_memory(jpegs)
        out = np.zeros((len(jpegs), *size, 3), np.uint8)
        in_flight.append((decoder.to_pixels(addresses, sizes, size, out, held), out, held))
    order = np.random.default_rng(threads).permutation(len(jobs))  # wait in any order
    for k in order:
        started, out, _ = in_flight[k]
        assert not len(decoder.wait(started))
        for pixels, jpeg in zip(out, jobs[k], strict=True):
            assert (pixels == decode_with_opencv(jpeg)).all()
    decoder.close()


PATIENCE_S = 120


def threads():
    return {path.name for path in Path("/proc/self/task").iterdir()}


def have_ended(these):
    """Return whether threads end: /proc lists a joined thread for a moment."""
    until = time.monotonic() + PATIENCE_S
    while threads() & these and time.monotonic() < until:
        time.sleep(0.001)
    return not threads() & these


@pytest.mark.parametrize("forgotten", [False, True])
def test_threads_end_while_jobs_are_in_flight(forgotten):
    size, before = (112, 112), threads()
    held, addresses, sizes = in_memory(
        [encode(make_image(size, "noise", i)) for i in range(4)] * 500
    )
    decoder = ops.loader_kernels().decoder(2)
    its = threads() - before
    assert len(its) == 2
    for _ in range(2):
        decoder.to_pixels(addresses, sizes, size, np.empty((2000, *size, 3), np.uint8), held)
    if not forgotten:
        decoder.close()
    del decoder
    gc.collect()
    assert have_ended(its)


def test_a_forked_process_can_close_the_decoder_of_its_parent():
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


def test_arrays_of_other_shapes_are_refused():
    decoder = ops.loader_kernels().decoder(1)
    held, addresses, sizes = in_memory([encode(make_image((8, 8), "noise"))] * 2)
    for out, message in (
        (np.empty((1, 8, 8, 3), np.uint8), r"got uint8 \(1, 8, 8, 3\); give uint8 \(2, 8, 8, 3\)"),
        (np.empty((2, 8, 8, 3), np.int8), r"`out` does not fit the images, got int8 "),
        (np.empty((2, 8, 8, 6), np.uint8)[..., ::2], "must be contiguous and writeable"),
        (np.broadcast_to(np.uint8(0), (2, 8, 8, 3)), "must be contiguous and writeable"),
    ):
        with pytest.raises(ValueError, match=message):
            decoder.to_pixels(addresses, sizes, (8, 8), out, held)
    out = np.empty((2, 8, 8, 3), np.uint8)
    with pytest.raises(ValueError, match="addresses has the wrong number of values, got 1; .* 2 "):
        decoder.to_pixels(addresses[:1], sizes, (8, 8), out, held)
    with pytest.raises(
        ValueError, match="mirror has the wrong number of values, got 1; .* 2 images"
    ):
        decoder.to_planes(addresses, sizes, (8, 8), np.zeros(1, bool), **PLANES, out=0, source=held)
    decoder.close()


def test_a_second_wait_and_a_job_after_close_are_refused():
    decoder, out = ops.loader_kernels().decoder(1), np.empty((1, 8, 8, 3), np.uint8)
    held, addresses, sizes = in_memory([encode(make_image((8, 8), "noise"))])
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
    """Wait until a thread sleeps in the library, or has ended."""
    until, before = time.monotonic() + PATIENCE_S, []
    while thread.is_alive() and time.monotonic() < until:
        time.sleep(0.02)  # time for the thread to acquire the GIL
        try:
            lines = Path(f"/proc/self/task/{thread.native_id}/status").read_text().splitlines()
        except OSError:
            return
        now = [line for line in lines if line.startswith("State") or "ctxt_switches" in line]
        if "(sleeping)" in now[0] and now == before:  # it did not run meanwhile
            return
        before = now


def test_a_waiting_thread_gets_an_error_when_the_decoder_is_closed():
    size, errors, complete_jobs = (112, 112), [], []
    held, addresses, sizes = in_memory(
        [encode(make_image(size, "noise", i)) for i in range(4)] * 2000
    )
    decoder, out = ops.loader_kernels().decoder(1), np.zeros((8000, *size, 3), np.uint8)
    started = decoder.to_pixels(addresses, sizes, size, out, held)

    def wait():
        try:
            complete_jobs.append(not len(decoder.wait(started)) and bool(out[-1].any()))
        except (KeyError, RuntimeError) as error:
            errors.append(error)

    waiting = threading.Thread(target=wait)
    waiting.start()
    until_asleep(waiting)
    decoder.close()
    waiting.join(PATIENCE_S)
    assert not waiting.is_alive()
    assert len(errors) == 1 or complete_jobs == [True]  # a busy machine may finish the job first


PAGE = mmap.PAGESIZE
LIBC = ctypes.CDLL(None, use_errno=True)


@contextlib.contextmanager
def ending_at_a_page(size):
    """Yield the address of a buffer that ends at an inaccessible page."""
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
def test_no_byte_after_an_image_or_its_result_is_accessed(size, sampling):
    jpeg = encode(make_image(size, "smooth"), 90, sampling)
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
            assert not whole or (last[0] == decode_with_opencv(jpeg)).all()
            decoder.close()


def with_code_of_ones(jpeg):
    """Return a JPEG whose first Huffman table also has the invalid 16-bit code of ones."""
    _, at, length = segment_of(jpeg, 0xC4)
    table = bytearray(jpeg[at + 4 : at + 2 + length])
    counts = table[1:17]
    code = 0
    for bits, count in enumerate(counts, 1):
        code = (code << 1) if bits > 1 else 0
        code += count
    missing = (1 << 16) - code
    counts[15] += missing
    symbols = table[17 : 17 + sum(table[1:17])] + bytes([1] * missing)
    rest = table[17 + sum(table[1:17]) :]
    payload = bytes(table[:1]) + bytes(counts) + bytes(symbols) + bytes(rest)
    return (
        jpeg[:at]
        + b"\xff\xc4"
        + (len(payload) + 2).to_bytes(2, "big")
        + payload
        + (jpeg[at + length :])
    )


def test_a_huffman_code_of_ones_is_refused():
    jpeg = with_code_of_ones(encode(make_image((16, 16), "smooth"), 80))
    assert decode_with_opencv(jpeg) is None
    assert decoded([jpeg], (16, 16))[1] == [0]


def test_coefficients_out_of_range_are_skipped():
    # Some versions of libjpeg shift a row of this block by two bits, and others do not.
    jpeg = encode(make_image((8, 8), "smooth")[:, :, 0], 100)
    loud = changed(jpeg, 0xDB, 2, 255)  # coefficient (0, 1)
    quiet = encode(np.tile(np.linspace(100, 130, 8), (8, 1)), 100)
    assert decoded([jpeg, quiet], (8, 8))[1] == []
    steep = encode(np.tile(np.repeat([0.0, 255.0], 4), (8, 1)), 100)
    assert decoded([changed(steep, 0xDB, 2, 255), loud], (8, 8))[1][:1] == [0]


@pytest.mark.parametrize("sampling", [0x00, 0x10, 0x55])
def test_invalid_sampling_factors_are_skipped(sampling):
    jpeg = changed(encode(make_image((8, 8), "smooth")[:, :, 0]), 0xC0, 7, sampling)
    assert decoded([jpeg], (8, 8))[1] == [0]


def test_oversized_images_are_skipped():
    face = encode(make_image((8, 8), "smooth"))
    oversized = face[:-2] + bytes(400_000) + face[-2:]
    padded = face + bytes(400_000)
    assert decoded([face, oversized, padded, face], (8, 8))[1] == [1, 2]
