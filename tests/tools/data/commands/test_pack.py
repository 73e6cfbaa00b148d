# SPDX-License-Identifier: Apache-2.0
"""Command pack: bytes of the set, sources, held-out identities, resumption, hostile input."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from evaluation.pairs import read_pairs
from evaluation.people import find_people
from image_headers import jpeg_frame
from pipeline.records.writer import write_record_set
from tests.conftest import face
from tests.tools.data.sets import (
    decode,
    encode,
    read_set,
    run,
    set_bytes,
    tree,
    with_exif,
    write_people,
)
from tools.data import pack_plan, packing, unfinished_records
from tools.data.commands import pack
from tools.data.image_fitting import ImageFormat
from tools.data.pack_plan import PackOptions
from tools.data.packing import STATE_FOLDER, Packing

ROOT = Path(__file__).resolve().parents[4]


@pytest.fixture(autouse=True)
def _small_pieces(monkeypatch):
    monkeypatch.setattr(pack_plan, "_PIECE_IMAGES", 5)


def names(folder: Path) -> list[str]:
    return json.loads((folder / "identities.json").read_text())


def report(folder: Path) -> dict:
    return json.loads((folder / "pack.json").read_text())


@pytest.fixture(scope="module")
def photographs(tmp_path_factory) -> Path:
    """Return a folder of 8 people whose images fit, and three images that do not fit."""
    folder = write_people(tmp_path_factory.mktemp("photographs"), {f"p{n}": 4 for n in range(8)})
    (folder / "p1" / "a.png").write_bytes(encode(decode(face(1, 9, (150, 150)))))
    (folder / "p2" / "b.jpg").write_bytes(face(2, 9, (60, 120)))
    (folder / "p3" / "c.jpg").write_bytes(face(3, 9)[:-300])
    return folder


def test_jpegs_that_fit_give_the_bytes_of_the_record_writer(tmp_path):
    write_people(tmp_path / "in", {"a": 4, "b": 3, "c": 5})
    assert run("pack", tmp_path / "in", tmp_path / "out") == 0
    images = [(n, face(n, shot)) for n, count in enumerate((4, 3, 5)) for shot in range(count)]
    write_record_set(tmp_path / "expected", images, 3)
    for name in ("train.rec", "train.idx", "property"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "expected" / name).read_bytes()
    assert names(tmp_path / "out") == ["a", "b", "c"]
    assert report(tmp_path / "out")["changes"] == {"stored": 12}


def test_the_number_of_processes_does_not_change_a_byte(photographs, tmp_path):
    outs = [tmp_path / str(count) for count in (1, 2, 3)]
    for out in outs:
        options = ["--processes", out.name, "--val-people", 3, "--val-pairs", 20]
        assert run("pack", photographs, out, *options) == 0
    assert tree(outs[0]) == tree(outs[1]) == tree(outs[2])
    assert report(outs[0])["changes"] == {"resized": 1, "stored": 32, "stretched": 1}


def test_damaged_files_are_listed_and_fatal_only_with_strict(photographs, tmp_path, capsys):
    assert run("pack", photographs, tmp_path / "a") == 0
    assert "unusable: p3/c.jpg: is truncated, got" in capsys.readouterr().out
    assert [path for path, _ in report(tmp_path / "a")["rejected"]] == ["p3/c.jpg"]
    assert run("pack", photographs, tmp_path / "b", "--strict") == 2
    assert tree(tmp_path / "a") == tree(tmp_path / "b")


def test_other_images_are_turned_resized_and_encoded_once_as_stated(tmp_path, capsys):
    upright = decode(face(0, 0, (120, 60)))
    turned = with_exif(encode(cv2.rotate(upright, cv2.ROTATE_90_COUNTERCLOCKWISE), ".jpg"), 6)
    (tmp_path / "in" / "a").mkdir(parents=True)
    (tmp_path / "in" / "a" / "turned.jpg").write_bytes(turned)
    options = ["--size", "60x30", "--quality", 80, "--sampling", "4:4:4"]
    assert run("pack", tmp_path / "in", tmp_path / "out", *options) == 0
    ((_, jpeg),) = read_set(tmp_path / "out")
    difference = decode(jpeg).astype(int) - cv2.resize(upright, (30, 60))
    assert np.abs(difference).mean() < 4
    assert jpeg_frame(jpeg).sampling == ((1, 1),) * 3
    assert b"Exif" not in jpeg
    assert "JPEG quality 80 and chroma sampling 4:4:4" in capsys.readouterr().out


def test_exif_after_jfif_turns_an_image_that_would_otherwise_fit(tmp_path):
    (tmp_path / "in" / "a").mkdir(parents=True)
    (tmp_path / "in" / "a" / "0.jpg").write_bytes(with_exif(face(0, 0), 3))
    assert run("pack", tmp_path / "in", tmp_path / "out") == 0
    ((_, jpeg),) = read_set(tmp_path / "out")
    assert np.abs(decode(jpeg).astype(int) - decode(face(0, 0))[::-1, ::-1]).mean() < 3
    assert report(tmp_path / "out")["changes"] == {"turned": 1}


def test_every_kind_of_image_becomes_a_colour_jpeg_or_is_listed(tmp_path):
    folder = tmp_path / "in" / "a"
    folder.mkdir(parents=True)
    colour = decode(face(0, 0))
    grey = cv2.cvtColor(colour, cv2.COLOR_BGR2GRAY)
    alpha = cv2.cvtColor(colour, cv2.COLOR_BGR2BGRA)
    usable = {
        "16-bit.png": encode(colour.astype(np.uint16) * 257),
        "alpha.png": encode(alpha),
        "grey.jpg": encode(grey, ".jpg"),
        "grey.png": encode(grey),
        "image.bmp": encode(colour, ".bmp"),
        "image.webp": encode(colour, ".webp"),
    }
    unusable = {
        "empty.jpg": b"",
        "text.jpg": b"no image",
        "cut.png": encode(colour)[:-500],
        "huge.png": encode(colour)[:16] + b"\0\1\0\0\0\1\0\0" + encode(colour)[24:],
        "hollow.jpg": encode(cv2.resize(colour, (90, 90)), ".jpg")[:1500] + b"\xff\xd9",
    }
    for name, data in (usable | unusable).items():
        (folder / name).write_bytes(data)
    assert run("pack", tmp_path / "in", tmp_path / "out") == 0
    found = read_set(tmp_path / "out")
    assert len(found) == len(usable)
    for _, jpeg in found:
        pixels = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
        assert pixels.shape == (112, 112, 3)
    reasons = dict(report(tmp_path / "out")["rejected"])
    assert set(reasons) == {f"a/{name}" for name in unusable}
    assert reasons["a/hollow.jpg"] == "is damaged, got premature end of data segment"
    assert reasons["a/huge.png"].startswith("has more than 67108864 pixels, got 65536x65536")


def test_damaged_pixels_of_a_jpeg_that_fits_are_found_with_check_pixels(tmp_path):
    write_people(tmp_path / "in", {"a": 1, "b": 1})
    hollow = face(0, 0)[:1200] + b"\xff\xd9"
    (tmp_path / "in" / "a" / "0.jpg").write_bytes(hollow)
    assert run("pack", tmp_path / "in", tmp_path / "plain") == 0
    assert run("pack", tmp_path / "in", tmp_path / "checked", "--check-pixels") == 0
    assert [jpeg for _, jpeg in read_set(tmp_path / "plain")] == [hollow, face(1, 0)]
    assert read_set(tmp_path / "checked") == [(0, face(1, 0))]
    assert names(tmp_path / "checked") == ["b"]
    assert report(tmp_path / "checked")["identities_without_image"] == ["a"]


def test_an_image_of_another_shape_is_cut_around_its_centre_with_crop(tmp_path):
    pixels = np.zeros((112, 224, 3), np.uint8)
    pixels[:, 56:168] = 200
    (tmp_path / "in" / "a").mkdir(parents=True)
    (tmp_path / "in" / "a" / "0.png").write_bytes(encode(pixels))
    for out, options in (("cut", ["--crop"]), ("stretched", [])):
        assert run("pack", tmp_path / "in", tmp_path / out, *options) == 0
        assert report(tmp_path / out)["changes"] == {out: 1}
    ((_, cut),), ((_, stretched),) = read_set(tmp_path / "cut"), read_set(tmp_path / "stretched")
    assert (np.abs(decode(cut).astype(int) - 200) < 3).all()
    assert decode(stretched)[:, 0].max() < 10


def test_held_out_identities_are_in_the_pairs_and_not_in_the_set(tmp_path):
    write_people(tmp_path / "in", {f"p{n:02d}": 3 for n in range(30)})
    options = ["--val-people", 20, "--val-pairs", 40]
    assert run("pack", tmp_path / "in", tmp_path / "out", *options) == 0
    person = {face(n, shot): n for n in range(30) for shot in range(3)}
    pairs = read_pairs(tmp_path / "out" / "held_out.bin")
    shown = [person[bytes(image)] for image in pairs.images]
    kept = [person[jpeg] for _, jpeg in read_set(tmp_path / "out")]
    assert len(set(kept)) == 10 and len(set(shown)) == 20 and not set(kept) & set(shown)
    assert names(tmp_path / "out") == [f"p{n:02d}" for n in sorted(set(kept))]
    assert [a == b for a, b in zip(shown[::2], shown[1::2])] == list(pairs.issame)
    assert len(pairs) == 40 and sum(pairs.issame) == 20
    assert find_people(pairs).kind == "people"
    folds = [set(shown[i : i + 8]) for i in range(0, 80, 8)]
    assert sum(map(len, folds)) == len(set(shown))
    assert (tmp_path / "out" / "held_out.people.txt").read_text().split("\n")[0] == (
        f"{sorted(set(shown)).index(shown[0])} p{shown[0]:02d}"
    )


def interrupted(after: int):
    """Return a method that packs ``after`` pieces and then fails."""
    write = Packing._write

    def failing(self, number, results):
        if len(self._done) >= after:
            raise OSError(28, "No space left on device")
        return write(self, number, results)

    return failing


@pytest.mark.parametrize("after", [0, 1, 4, 6])
@pytest.mark.parametrize("damage", ["none", "torn", "lost page"])
def test_an_interrupted_pack_resumes_with_the_same_bytes(
    photographs, tmp_path, monkeypatch, capsys, after, damage
):
    out = tmp_path / "out"
    command = ["pack", photographs, out, "--val-people", 3, "--val-pairs", 20]
    run("pack", photographs, tmp_path / "expected", *command[3:])
    with monkeypatch.context() as patch:
        patch.setattr(Packing, "_write", interrupted(after))
        assert run(*command) == 2
    assert "No space left on device; remove the cause and repeat" in capsys.readouterr().err
    assert [path.name for path in out.iterdir()] == [STATE_FOLDER]
    rec, journal = out / STATE_FOLDER / "train.rec", out / STATE_FOLDER / "journal.jsonl"
    if damage == "torn":
        rec.write_bytes(rec.read_bytes() + b"half a record")
        journal.write_bytes(journal.read_bytes() + b'{"part": "tr')
    elif damage == "lost page" and after:
        with open(rec, "r+b") as file:
            file.seek(rec.stat().st_size - 2000)
            file.write(bytes(1000))
    assert run(*command) == 0
    resumed = "resumed after" in capsys.readouterr().out
    assert resumed == (after > (1 if damage == "lost page" else 0))
    assert tree(out) == tree(tmp_path / "expected")


@pytest.mark.parametrize("renamed", range(6))
def test_a_pack_killed_between_two_renamings_completes(photographs, tmp_path, monkeypatch, renamed):
    out = tmp_path / "out"
    run("pack", photographs, tmp_path / "expected")
    replace, count = os.replace, [0]

    def stop(source, target):
        if Path(target).parent == out:
            count[0] += 1
            if count[0] > renamed:
                raise KeyboardInterrupt
        replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", stop)
        assert run("pack", photographs, out) == (130 if renamed < 5 else 0)
    assert (out / "property").exists() == (renamed >= 5)
    assert run("pack", photographs, out) == 0
    assert tree(out) == tree(tmp_path / "expected")


def test_a_complete_set_is_left_alone_and_another_set_is_refused(photographs, tmp_path, capsys):
    run("pack", photographs, tmp_path / "out")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()}
    assert run("pack", photographs, tmp_path / "out") == 0
    assert "the set is already complete" in capsys.readouterr().out
    assert run("pack", photographs, tmp_path / "out", "--quality", 90) == 2
    assert "holds a set of other images or with other options" in capsys.readouterr().err
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()} == before


def test_interrupted_work_with_other_images_is_refused(photographs, tmp_path, monkeypatch, capsys):
    with monkeypatch.context() as patch:
        patch.setattr(Packing, "_write", interrupted(1))
        run("pack", photographs, tmp_path / "out")
    before = tree(tmp_path / "out")
    assert run("pack", photographs, tmp_path / "out", "--size", "64") == 2
    assert "holds interrupted work with other images or options" in capsys.readouterr().err
    assert tree(tmp_path / "out") == before


def test_a_second_process_is_refused_while_the_first_one_packs(photographs, tmp_path, capsys):
    (tmp_path / "out" / STATE_FOLDER).mkdir(parents=True)
    first = unfinished_records.Journal(tmp_path / "out" / STATE_FOLDER / "journal.jsonl", "plan")
    assert run("pack", photographs, tmp_path / "out") == 2
    assert "another process writes to this folder" in capsys.readouterr().err
    first.close()


def test_a_full_disk_leaves_work_that_resumes(photographs, tmp_path):
    command = [sys.executable, "-m", "tools.data", "pack", photographs, tmp_path / "out"]

    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))

    ended = subprocess.run(
        command, cwd=ROOT, preexec_fn=limit, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 2 and ended.stderr.count("\n") == 1
    assert "File too large; remove the cause and repeat" in ended.stderr
    assert [path.name for path in (tmp_path / "out").iterdir()] == [STATE_FOLDER]
    assert run("pack", photographs, tmp_path / "out") == 0
    assert len(read_set(tmp_path / "out")) == 34


def test_a_killed_worker_ends_the_pack_in_one_sentence(photographs, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(packing, "fit_image", lambda *_: os._exit(9))
    assert run("pack", photographs, tmp_path / "out") == 2
    error = capsys.readouterr().err
    assert "--processes: a worker process ended early, got exit code 9" in error


def test_a_dry_run_reports_as_the_run_and_writes_nothing(photographs, tmp_path, capsys):
    options = ["--val-people", 3, "--val-pairs", 20]
    assert run("pack", photographs, tmp_path / "out", "--dry-run", *options) == 0
    dry = capsys.readouterr().out.splitlines()
    assert list(tmp_path.iterdir()) == []
    assert run("pack", photographs, tmp_path / "out", *options) == 0
    assert dry == ["dry run: nothing is written", *capsys.readouterr().out.splitlines()]


def test_hostile_folders_give_a_result(tmp_path, capsys):
    folder = write_people(tmp_path / "in", {" ": 1, "a\nb": 2, "名前": 1, "b": 1, "empty": 0})
    (folder / os.fsdecode(b"\xff")).mkdir()
    (folder / os.fsdecode(b"\xff") / "0.jpg").write_bytes(face(7, 7))
    (folder / "b" / "loop").symlink_to(folder)
    (folder / "b" / "other").symlink_to(folder / "a\nb")
    (folder / "again").symlink_to(folder / "b")
    (folder / "self").symlink_to(folder / "self")
    (folder / "b" / "broken.jpg").symlink_to("nowhere")
    (folder / "b" / "linked.jpg").symlink_to(folder / "b" / "0.jpg")
    os.mkfifo(folder / "b" / "pipe.jpg")
    (folder / "b" / "zero.jpg").symlink_to("/dev/zero")
    (folder / "b" / "notes.txt").write_text("no image")
    (folder / "outside.jpg").write_bytes(face(8, 8))
    (folder / ".hidden").mkdir()
    assert run("pack", folder, tmp_path / "out") == 0
    lines = capsys.readouterr().out.splitlines()
    assert "unusable: again/broken.jpg: is a link that leads to no file" in lines
    assert "passed over: 2 special files (pipes, sockets, devices)" in lines
    assert "passed over: 3 folders that were already found under another path" in lines
    assert names(tmp_path / "out") == [" ", "a\nb", "again", "名前", os.fsdecode(b"\xff")]
    assert len(read_set(tmp_path / "out")) == 7


def test_lists_of_every_format_give_the_same_set(tmp_path):
    folder = write_people(tmp_path / "in", {"0": 2, "1 x": 2, "2": 1})
    paths = [path.relative_to(folder).as_posix() for path in sorted(folder.glob("*/*"))]
    labels = [path[0] for path in paths]
    rows = list(zip(paths, labels))
    lists = {
        "plain.txt": "".join(f"{path} {label}\n" for path, label in rows),
        "windows.txt": "\ufeff" + "".join(f"{path}\t{label}\r\n\r\n" for path, label in rows),
        "face2rec.lst": "".join(f"1\t{path}\t{label}\t0\t0\t9\t9\n" for path, label in rows),
        "im2rec.lst": "".join(f"{i}\t{y}.000000\t{p}\n" for i, (p, y) in enumerate(rows)),
        "named.csv": "id,name,path\n" + "".join(f'{y},x,"{p}"\n' for p, y in rows),
        "bare.csv": "".join(f"{path},{label}\n" for path, label in rows[::-1]),
        "absolute.txt": "".join(f"{folder}/../in/{path} {label}\n" for path, label in rows),
    }
    assert run("pack", folder, tmp_path / "expected") == 0
    for name, text in lists.items():
        (tmp_path / name).write_text(text, newline="")
        assert run("pack", tmp_path / name, tmp_path / f"{name}-out", "--root", folder) == 0
        assert names(tmp_path / f"{name}-out") == ["0", "1", "2"]
        images = read_set(tmp_path / f"{name}-out")
        if name == "bare.csv":  # the images of an identity keep the order of the list
            images = [images[row] for row in (1, 0, 3, 2, 4)]
        assert images == read_set(tmp_path / "expected")


def test_missing_and_repeated_files_of_a_list_are_reported(tmp_path):
    folder = write_people(tmp_path / "in", {"a": 2})
    os.mkfifo(folder / "pipe")
    lines = ["a/0.jpg x", "a/none.jpg x", "./a/0.jpg y", "pipe y", "a/1.jpg z"]
    (folder / "list.txt").write_text("\n".join(lines))
    assert run("pack", folder / "list.txt", tmp_path / "out") == 0
    assert names(tmp_path / "out") == ["x", "z"]
    assert sorted(report(tmp_path / "out")["rejected"]) == [
        ["./a/0.jpg", "is on line 3 and on line 1"],
        ["a/none.jpg", "cannot be found, got No such file or directory"],
        ["pipe", "is not a regular file"],
    ]


@pytest.mark.parametrize(
    ("make", "options", "says"),
    [
        ({}, [], "in: must contain one folder of images per identity, got 0 folders"),
        ({"a.jpg": b"x"}, [], "got 0 folders without images and 1 files outside them"),
        ({"a/a.jpg": b"x"}, [], "must contain usable images for training, got 1 unusable files"),
        ({"a/0.jpg": None}, ["--size", "0"], "--size: must be HEIGHTxWIDTH or the side"),
        ({"a/0.jpg": None}, ["--quality", 0], "--quality: must be in 1 .. 100, got 0"),
        ({"a/0.jpg": None}, ["--processes", 0], "--processes: must be in 1 .. 256, got 0"),
        ({"a/0.jpg": None}, ["--val-people", 1], "--val-people: must be at least 2"),
        ({"a/0.jpg": None}, ["--root", "."], "--root: belongs to a list of images"),
    ],
)
def test_unusable_input_gets_one_sentence_and_nothing_is_written(
    tmp_path, capsys, make, options, says
):
    (tmp_path / "in").mkdir()
    for name, data in make.items():
        (tmp_path / "in" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "in" / name).write_bytes(face(0, 0) if data is None else data)
    assert run("pack", tmp_path / "in", tmp_path / "out", *options) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and says in error and error.count("\n") == 1
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (b"", "must list at least one image, got none"),
        (b"alone\n", "line 1: must hold a path and a label, got 'alone'"),
        (b"a/0.jpg 1\nalone\n", "line 2: must hold a path and a label in the format plain text"),
        (b"\0\1\2", "line 1: must be text of at most 65536 bytes"),
        (b"x" * 70_000, "line 1: must be text of at most 65536 bytes"),
        (b"none.jpg 1\n", "got 1 paths and no usable file; the first one, none.jpg, cannot be"),
    ],
)
def test_an_unusable_list_gets_one_sentence(tmp_path, capsys, text, says):
    (tmp_path / "list.txt").write_bytes(text)
    assert run("pack", tmp_path / "list.txt", tmp_path / "out") == 2
    error = capsys.readouterr().err
    assert says in error and error.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("out", ["in", "in/a/out", "file", "full", "file/below", "/proc/out"])
def test_an_unusable_output_folder_is_refused_unchanged(tmp_path, capsys, out):
    write_people(tmp_path / "in", {"a": 1})
    (tmp_path / "file").write_text("kept")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "train.rec").write_text("kept")
    before = tree(tmp_path)
    assert run("pack", tmp_path / "in", tmp_path / out) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1 and "; " in error
    assert tree(tmp_path) == before


def test_a_set_is_read_by_mxnet_and_by_dali(photographs, tmp_path):
    run("pack", photographs, tmp_path / "out")
    program = """
import launch.environment.numpy_aliases
import sys, json, mxnet as mx
from nvidia.dali import fn, pipeline_def
rec, idx = sys.argv[1] + "/train.rec", sys.argv[1] + "/train.idx"
reader = mx.recordio.MXIndexedRecordIO(idx, rec, "r")
header, _ = mx.recordio.unpack(reader.read_idx(0))
end, last = (int(n) for n in header.label)
found = [mx.recordio.unpack(reader.read_idx(key)) for key in range(1, end)]
people = [mx.recordio.unpack(reader.read_idx(key))[0].label.tolist() for key in range(end, last)]
@pipeline_def(batch_size=1, num_threads=1, device_id=None)
def read():
    return tuple(fn.readers.mxnet(path=[rec], index_path=[idx]))
pipe = read()
pipe.build()
same = 0
for key in range(last):
    image, label = (x.at(0) for x in pipe.run())
    if 1 <= key < end:
        same += int(image.tobytes() == found[key - 1][1] and label[0] == found[key - 1][0].label)
print(json.dumps([[h.label for h, _ in found], [b.hex() for _, b in found], people, same]))
"""
    done = subprocess.run(
        [sys.executable, "-c", program, tmp_path / "out"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    labels, images, people, same = json.loads(done.stdout.splitlines()[-1])
    expected = read_set(tmp_path / "out")
    assert labels == [label for label, _ in expected]
    assert images == [jpeg.hex() for _, jpeg in expected]
    assert same == len(expected) == 34
    first = [labels.index(n) + 1 for n in range(8)]
    assert people == [[a, b] for a, b in zip(first, [*first[1:], 35])]


def test_pack_unpack_pack_gives_the_same_bytes(photographs, tmp_path):
    assert run("pack", photographs, tmp_path / "a") == 0
    assert run("unpack", tmp_path / "a", tmp_path / "b") == 0
    assert run("pack", tmp_path / "b", tmp_path / "c") == 0
    assert set_bytes(tmp_path / "a") == set_bytes(tmp_path / "c")


def test_workers_do_not_hold_the_journal(photographs, tmp_path, monkeypatch):
    def report_files(_):
        def work(number):
            names = [f"/proc/self/fd/{n}" for n in os.listdir("/proc/self/fd")]
            raise ValueError(" ".join(os.readlink(n) for n in names if os.path.exists(n)))

        return work

    monkeypatch.setattr(packing, "_make_worker", report_files)
    plan = pack_plan.make_plan(pack.find_in_folder(photographs), PackOptions(ImageFormat(112, 112)))
    work = Packing(plan, tmp_path / "state")
    with pytest.raises(ValueError) as error:
        work.run(2, lambda *_: None)
    work.close()
    assert "socket" in str(error.value) and "state" not in str(error.value)
