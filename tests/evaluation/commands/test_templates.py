# SPDX-License-Identifier: Apache-2.0
"""Command templates, end to end: folders in the layouts of the protocols, against slow oracles."""

from __future__ import annotations

import json
from itertools import combinations
from pathlib import Path

import cv2
import numpy as np
import pytest

from evaluation import __main__ as command
from evaluation.face_crops import crop_face
from evaluation.verification import verify
from interchange import load_embedder
from tests.evaluation.protocol_folders import people_rows, write_ijb, write_ytf
from tests.evaluation.slow_oracles import rank, tar, template, unit


def run(*words: object) -> int:
    return command.main(["templates", *map(str, words)])


@pytest.fixture
def ijbc(tmp_path) -> tuple[Path, dict[str, np.ndarray], np.ndarray, np.ndarray]:
    """Return a folder, the content of its lists, and embeddings of faces and mirror images."""
    lists = write_ijb(tmp_path, "ijbc")
    subjects = lists["subjects"][lists["templates"]] - 100
    plain, mirrored = (people_rows(np.random.default_rng(s), subjects, 1.2) for s in (7, 8))
    return tmp_path, lists, plain, mirrored


def oracle(lists, rows: np.ndarray, weights: np.ndarray) -> dict[int, np.ndarray]:
    pooled = (lists["templates"], lists["media"])
    return {t: template(rows, *pooled, t, weights) for t in range(1, 61)}


def check_verification(found, templates, lists) -> None:
    scores = np.array([float(templates[a] @ templates[b]) for a, b in lists["pairs"]])
    genuine, impostors = scores[lists["same"]], scores[~lists["same"]]
    assert found["genuine_pairs"] == len(genuine) and found["impostor_pairs"] == len(impostors)
    for point in found["roc"]:
        assert point["tar"] == pytest.approx(tar(genuine, impostors, point["far"]), abs=1e-9)


def check_identification(found, templates, lists) -> None:
    for name, first, last in (("G1", 1, 11), ("G2", 11, 21), ("G1+G2", 1, 21)):
        ranks, mates, false, right = [], [], [], []
        for probe in range(21, 61):
            scores = {t: float(templates[probe] @ templates[t]) for t in range(first, last)}
            mate = next((t for t in scores if lists["subjects"][t] == lists["subjects"][probe]), 0)
            if not mate:
                false.append(max(scores.values()))
                continue
            others = [score for t, score in scores.items() if t != mate]
            ranks.append(rank(scores[mate], others))
            mates.append(scores[mate])
            right.append(ranks[-1] == 1)
        result = found[name]
        unmated = 20 if last - first == 10 else 0  # each subject is in one of the galleries
        assert (result["mated_probes"], result["unmated_probes"]) == (40 - unmated, unmated)
        assert result["rank_1"] == np.mean(np.array(ranks) <= 1)
        assert result["rank_5"] == np.mean(np.array(ranks) <= 5)
        if not unmated:
            assert result["tpir_at_fpir_0.1"] is None
            continue
        rates = [
            np.mean(np.array(right) & (np.array(mates) > threshold))
            for threshold in false
            if np.mean(np.array(false) > threshold) <= 0.1
        ]
        assert result["tpir_at_fpir_0.1"] == pytest.approx(max(rates))
    mean = np.mean([found[name]["rank_1"] for name in ("G1", "G2")])
    assert found["mean"]["rank_1"] == pytest.approx(mean)


def test_all_variants_of_ijbc_equal_slow_sums_and_searches(ijbc, capsys):
    folder, lists, plain, mirrored = ijbc
    np.savez(folder / "e.npz", embs=plain, embs_f=mirrored)
    words = ["--fars", 0.01, 0.1, "--fpirs", 0.1, "--ranks", 1, 5, "--json", folder / "r.json"]
    assert run("ijbc", folder, "--embeddings", folder / "e.npz", "--grid", *words) == 0
    report = json.loads((folder / "r.json").read_text())
    assert report["faces"] == len(plain) and len(report["variants"]) == 8
    for name, found in report["variants"].items():
        rows = plain + mirrored * (name[5] == "1")
        weights = lists["scores"] if name[3] == "1" else np.ones(len(rows))
        if name[1] == "1":
            rows = unit(rows)
        templates = oracle(lists, rows, weights)
        check_verification(found["verification"], templates, lists)
        check_identification(found["identification"], templates, lists)
    out = capsys.readouterr().out
    assert "gallery mean\n" in out and "gallery G1+G2\n" in out and out.startswith("IJB-C 1:1, ")


def test_embeddings_with_names_and_lengths_are_those_of_the_faces(tmp_path):
    lists = write_ijb(tmp_path, "ijbb")
    rows = people_rows(np.random.default_rng(0), lists["subjects"][lists["templates"]] - 100, 1)
    norms = np.linalg.norm(rows, axis=1)
    names = np.array([f"/x/loose_crop/{i}.jpg" for i in range(1, len(rows) + 1)])
    order = np.random.default_rng(1).permutation(len(rows))
    np.savez(
        tmp_path / "ours.npz",
        names=names[order],
        embeddings=(rows / norms[:, None])[order],
        norms=norms[order],
    )
    np.save(tmp_path / "rows.npy", rows)
    found = []
    for file in ("ours.npz", "rows.npy"):
        words = ["--embeddings", tmp_path / file, "--protocols", "1:1", "--json", tmp_path / "r"]
        assert run("ijbb", tmp_path / "IJBB", *words) == 0
        found.append(json.loads((tmp_path / "r").read_text())["variants"])
    (one,), (two,) = (each.values() for each in found)
    assert list(found[0]) == ["N0D1"] and list(one) == ["verification"]
    assert one["verification"]["genuine_pairs"] == two["verification"]["genuine_pairs"]
    for a, b in zip(one["verification"]["roc"], two["verification"]["roc"]):
        assert a["tar"] == b["tar"]


def test_a_model_embeds_the_aligned_faces_and_their_mirror_images(
    tmp_path, checkpoint, make_face, capsys
):
    lists = write_ijb(tmp_path, "ijbc")
    images = tmp_path / "IJBC" / "loose_crop"
    images.mkdir()
    faces = [make_face(person, 0, (130, 120)) for person in range(20)]
    for index, number in enumerate(lists["templates"], 1):
        (images / f"{index}.jpg").write_bytes(faces[int(number) % 20])
    words = ["--model", checkpoint, "--device", "cpu", "--protocols", "1:1", "--fars", 0.01, 0.1]
    assert run("ijbc", tmp_path, *words, "--json", tmp_path / "r.json") == 0
    variants = json.loads((tmp_path / "r.json").read_text())["variants"]
    embedder = load_embedder(checkpoint, flip=True, device="cpu")
    pixels = [
        cv2.imread(str(images / f"{i}.jpg"))[..., ::-1] for i in range(1, len(lists["media"]) + 1)
    ]
    crops = [crop_face(p, points, (112, 112)) for p, points in zip(pixels, lists["points"])]
    rows = embedder.raw_embeddings(np.stack(crops))
    check_verification(
        variants["N0D1F1"]["verification"], oracle(lists, rows, lists["scores"]), lists
    )
    (images / "3.jpg").write_bytes(b"no image")
    assert run("ijbc", tmp_path, *words) == 2
    assert f"error: {images}/3.jpg: does not decode as an image, got 8 b" in capsys.readouterr().err
    (images / "3.jpg").unlink()
    assert run("ijbc", tmp_path, *words) == 2
    assert f"error: {images}/3.jpg: must be an image file, got no such " in capsys.readouterr().err


CASES = [
    ("face_tid_mid.txt", "2.jpg 1 ", "2.jpg\udcff1 ", "line 2: must be UTF-8 text, got byte 0xff"),
    ("name_5pts_score.txt", " 0.", " nan 0.", "line 1: must have 12 values (name, 5 times x and y"),
    ("face_tid_mid.txt", "2.jpg 1 ", "2.jpg x ", "line 2: template must be an integer of at most"),
    ("face_tid_mid.txt", "2.jpg 1 ", "2.jpg 1 1 ", "line 2: must have 2 values (template medium)"),
    ("face_tid_mid.txt", "2.jpg 1 ", "../2.jpg 1 ", "line 2: must begin with a file name, got '."),
    ("name_5pts_score.txt", "2.jpg ", "2.jpg nan ", "line 2: must have 12 values (name, 5 times x"),
    ("name_5pts_score.txt", "\n2.jpg", "\n9.jpg", "line 2: must name the face of the same line in"),
    ("name_5pts_score.txt", " 0.", " -0.", "line 1: the score must be from 0 to 10000, got -0."),
    ("name_5pts_score.txt", "1.jpg ", "1.jpg 1e9 x", "line 1: must have 12 values"),
    ("template_pair_label.txt", " 0\n", " 2\n", "the label must be 0 or 1, got 2"),
    (
        "template_pair_label.txt",
        " 0\n",
        " 0 0\n",
        "must have 3 values (template 1 template 2 label",
    ),
    ("template_pair_label.txt", " 0\n", " 0\n61 1 0\n", "every template must have an image, got t"),
    (
        "1N_gallery_G2.csv",
        "12,111,img/12.jpg,1",
        "12;111",
        "must begin with TEMPLATE_ID,SUBJECT_ID, got",
    ),
    ("1N_gallery_G2.csv", "12,111,", "12,,", "the subject must be an integer of at most 18 digits"),
    ("1N_gallery_G2.csv", "14,113,", "14,113,x\n14,112,", "template 14 must have one subject, got"),
    ("1N_gallery_G1.csv", "2,101,", "99,101,", "every template must have an image, got template 9"),
    ("1N_probe_mixed.csv", "22,101,", "22,-1,", "the subject must be at least 0, got -1"),
]


@pytest.mark.parametrize("name, old, new, problem", CASES)
def test_a_malformed_list_is_named_with_file_and_line(ijbc, capsys, name, old, new, problem):
    folder, _, plain, _ = ijbc
    np.save(folder / "e.npy", plain)
    path = folder / "IJBC" / "meta" / f"ijbc_{name}"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1), errors="surrogateescape")
    assert run("ijbc", folder, "--embeddings", folder / "e.npy") == 2
    out, error = capsys.readouterr()
    assert out == "" and error.startswith(f"error: {path}: ") and error.count("\n") == 1
    assert problem in error


@pytest.mark.parametrize("name", ["face_tid_mid", "name_5pts_score"])
def test_a_list_of_faces_that_was_cut_off_is_refused(ijbc, capsys, name):
    folder, _, plain, _ = ijbc
    np.save(folder / "e.npy", plain)
    path = folder / "IJBC" / "meta" / f"ijbc_{name}.txt"
    path.write_bytes(path.read_bytes()[:-30])
    assert run("ijbc", folder, "--embeddings", folder / "e.npy") == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {folder}/IJBC/meta/ijbc_") and error.count("\n") == 1


@pytest.mark.parametrize(
    "words, problem",
    [
        (["--embeddings", "e.npy", "--model", "x"], "--embeddings: either --embeddings or --model"),
        ([], "--embeddings: either --embeddings or --model must be given, got neither; "),
        (["--embeddings", "short.npy"], "short.npy: must have one row for each of the "),
        (["--embeddings", "e.npy", "--fpirs", "2"], "--fpirs: each rate must be above 0 and below"),
        (["--embeddings", "nan.npy"], "nan.npy: row 3: all values must be finite, got NaN or inf"),
        (
            ["--embeddings", "zero.npy"],
            "template 60: the sum of the embeddings cannot be normalised",
        ),
        (["--embeddings", "e.npy", "--resize"], "--resize: concerns images that a model embeds, "),
        (["--embeddings", "e.npy", "--no-flip"], "--no-flip: cannot leave the mirror images out"),
        (["--embeddings", "cut.npy"], "cut.npy: array must have "),
        (["--embeddings", "flip.npz"], "flip.npz: embs_f must have 8 values per row, got 4; name"),
        (["--embeddings", "norms.npz"], "norms.npz: norms must have the shape ("),
    ],
)
def test_usage_errors_are_one_sentence(ijbc, capsys, monkeypatch, words, problem):
    folder, lists, plain, _ = ijbc
    monkeypatch.chdir(folder)
    bad, zero = plain.copy(), plain.copy()
    bad[3, 0] = np.nan
    zero[lists["templates"] == 60] = 0
    for name, rows in (("e", plain), ("short", plain[1:]), ("nan", bad), ("zero", zero)):
        np.save(f"{name}.npy", rows)
    Path("cut.npy").write_bytes(Path("e.npy").read_bytes()[:-1])
    np.savez("flip.npz", embs=plain, embs_f=plain[:, :4])
    np.savez("norms.npz", embeddings=plain, norms=np.ones((len(plain), 1)))
    assert run("ijbc", folder, *words) == 2
    out, error = capsys.readouterr()
    assert out == "" and error.startswith(f"error: {problem}") and error.count("\n") == 1
    assert run("ijbb", folder, "--embeddings", "e.npy") == 2
    assert "must contain the folder meta or IJBB/meta, got neither" in capsys.readouterr().err


def frames_of(videos: list[str], owners: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """Return names and embeddings of 1 to 4 frames per video."""
    rng = np.random.default_rng(3)
    counts = rng.integers(1, 5, len(videos))
    names = [f"/ytf/{v}/{i}.{v[-1]}.jpg" for v, n in zip(videos, counts) for i in range(n)]
    rows = people_rows(rng, np.repeat(owners, counts), 0.9)
    return np.array(names), rows * rng.uniform(1, 9, (len(rows), 1)).astype(np.float32)


def mean_of_frames(names: np.ndarray, rows: np.ndarray, video: str) -> np.ndarray:
    chosen = [unit(row) for name, row in zip(names, rows) if f"/{video}/" in name]
    return unit(np.mean(chosen, axis=0))


def test_youtube_faces_has_the_accuracy_of_the_mean_frames_over_ten_folds(tmp_path, capsys):
    lists = write_ytf(tmp_path)
    names, rows = frames_of(lists["videos"], [i // 3 for i in range(36)])
    order = np.random.default_rng(0).permutation(len(names))
    np.savez(tmp_path / "e.npz", names=names[order], embeddings=rows[order])
    report = tmp_path / "r.json"
    words = ["--embeddings", tmp_path / "e.npz", "--json", report]
    assert run("ytf", tmp_path / "splits.txt", *words) == 0
    found = json.loads(report.read_text())
    templates = np.stack([mean_of_frames(names, rows, video) for video in lists["videos"]])
    expected = verify(templates[lists["pairs"].ravel()], lists["same"])
    assert found["accuracy"] == pytest.approx(expected["accuracy"])
    assert found["accuracy_std"] == pytest.approx(expected["accuracy_std"])
    assert 0.6 < found["accuracy"] < 1 and found["folds"] == 10
    scores = np.einsum("ij,ij->i", *(templates[lists["pairs"][:, i]] for i in (0, 1)))
    point = found["roc"][-1]
    assert point["tar"] == pytest.approx(tar(scores[lists["same"]], scores[~lists["same"]], 0.1))
    assert capsys.readouterr().out.startswith("YouTube Faces: 100 pairs, 10 folds\n")


def test_folds_of_youtube_faces_may_stand_in_any_order(tmp_path):
    lists = write_ytf(tmp_path)
    names, rows = frames_of(lists["videos"], [i // 3 for i in range(36)])
    np.savez(tmp_path / "e.npz", names=names, embeddings=rows)
    reports = []
    for shuffle in (False, True):
        if shuffle:  # five columns become six, as in splits_corrected.txt
            head, *lines = (tmp_path / "splits.txt").read_text().splitlines()
            lines = [line[:-1] + "7, " + line[-1] for line in lines[50:] + lines[:50]]
            (tmp_path / "splits.txt").write_text("\n".join([head + ", corrected", *lines]))
        words = ["--embeddings", tmp_path / "e.npz", "--json", tmp_path / "r.json"]
        assert run("ytf", tmp_path / "splits.txt", *words) == 0
        reports.append(json.loads((tmp_path / "r.json").read_text()))
    assert reports[0] == pytest.approx(reports[1])


@pytest.mark.parametrize(
    "old, new, problem",
    [
        (
            "1, 1, Person_",
            "1, 1, 1, Person_",
            'line 2: must be "split, [pair,] person/number, person/',
        ),
        ("1, 1, ", "x, 1, ", 'line 2: must be "split, [pair,] person/number, person/number, 0 or '),
        (", 1\n", ", 3\n", 'line 2: must be "split, [pair,] person/number, person/number, 0 or 1'),
        ("1, 1, Person_", "1, 1, a/Person_", 'line 2: must be "split, [pair,] person/number, pe'),
        (
            "1, 1, Person_",
            "1, 1, ../1, Person_",
            'line 2: must be "split, [pair,] person/number, person/',
        ),
        (
            "10, 1, ",
            "9, 1, ",
            "must have at least 2 folds with the same number of pairs, got ",
        ),
    ],
)
def test_a_malformed_line_of_splits_is_named(tmp_path, capsys, old, new, problem):
    write_ytf(tmp_path)
    path = tmp_path / "splits.txt"
    path.write_text(path.read_text().replace(old, new, 1))
    assert run("ytf", path, "--embeddings", tmp_path / "e.npz") == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {path}: {problem}") and error.count("\n") == 1


def test_a_model_embeds_the_frames_of_videos(tmp_path, checkpoint, make_face, capsys):
    (tmp_path / "filelist.txt").write_text("v/1 4\nv/2 4\nstill.jpg\n")
    paths = ["v/1/a.jpg", "v/1/b.jpg", "v/2/a.jpg", "still.jpg"]
    for index, path in enumerate(paths):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(make_face(index, 0))
    model = ["--model", checkpoint, "--device", "cpu", "--batch-size", 3]
    out = tmp_path / "features.bin"
    assert run("list", tmp_path / "filelist.txt", *model, "--write-features", out) == 0
    embedder = load_embedder(checkpoint, flip=True, device="cpu")
    rows = embedder(np.stack([cv2.imread(str(tmp_path / p))[..., ::-1] for p in paths]))
    expected = np.stack([unit(rows[0] + rows[1]), rows[2], rows[3]])
    found = np.fromfile(out, "<f4", offset=16).reshape(3, 8)
    assert np.fromfile(out, "<i4", 4).tolist() == [3, 8, 32, 5]
    np.testing.assert_allclose(found, expected, atol=1e-5)
    # The matrix is a file of embeddings as well.
    (tmp_path / "people.txt").write_text("Ann\nAnn\n-\n")
    words = ["--people", tmp_path / "people.txt", "--fars", 0.5, "--json", tmp_path / "r.json"]
    assert run("list", tmp_path / "filelist.txt", "--embeddings", out, *words) == 0
    report = json.loads((tmp_path / "r.json").read_text())
    assert (report["genuine_pairs"], report["impostor_pairs"]) == (1, 2)
    genuine, impostors = [expected[0] @ expected[1]], expected[:2] @ expected[2]
    assert report["roc"][0]["tar"] == tar(genuine, impostors, 0.5)
    (tmp_path / "v/2/a.jpg").unlink()
    assert run("list", tmp_path / "filelist.txt", *model, "--write-features", out) == 2
    assert f"error: {tmp_path}/v/2: must contain image files, got none" in capsys.readouterr().err


def test_lists_of_people_and_of_pairs_give_the_same_rates(tmp_path):
    entries = [f"v/{i}" for i in range(24)]
    people = [i % 6 for i in range(24)]
    names, rows = frames_of(entries, people)
    np.savez(tmp_path / "e.npz", names=names, embeddings=rows)
    (tmp_path / "list.txt").write_text("".join(f"./{entry}/ 25\n" for entry in entries))
    (tmp_path / "people.txt").write_text("\n".join(map(str, people)))
    pairs = [(i, j, int(people[i] == people[j])) for i, j in combinations(range(24), 2)]
    (tmp_path / "pairs.txt").write_text("".join(f"v/{i} v/{j} {s}\n" for i, j, s in pairs))
    words = ["--embeddings", tmp_path / "e.npz", "--fars", 0.01, 0.1, "--json", tmp_path / "r"]
    found = []
    for option in ("people", "pairs"):
        assert (
            run("list", tmp_path / "list.txt", *words, f"--{option}", tmp_path / f"{option}.txt")
            == 0
        )
        found.append(json.loads((tmp_path / "r").read_text()))
    means = [mean_of_frames(names, rows, entry) for entry in entries]
    scores = [float(means[i] @ means[j]) for i, j, _ in pairs]
    genuine = [score for score, (*_, same) in zip(scores, pairs) if same]
    impostors = [score for score, (*_, same) in zip(scores, pairs) if not same]
    for report in found:
        assert report["genuine_pairs"] == len(genuine)
        for point in report["roc"]:
            assert point["tar"] == pytest.approx(tar(genuine, impostors, point["far"]))


@pytest.mark.parametrize(
    "name, text, problem",
    [
        ("list.txt", "v/1\n./.\n", "line 2: must begin with a relative path, got './.'"),
        ("list.txt", "v/1\n/v/2\n", "line 2: must begin with a relative path, got '/v/2'"),
        ("list.txt", "v/1\nv/1\n", "line 2: must differ from all other lines, got 'v/1' as on li"),
        ("people.txt", "a\n", "must have one name for each of the 2 entries of the list, got 1 na"),
        (
            "pairs.txt",
            "v/1 v/2\n",
            "line 1: must be two entries followed by the label 0 or 1, got 'v/1 v/2'",
        ),
        ("pairs.txt", "v/1 v/2 1\nv/1 v/3 0\n", "line 2: must name entries of the list, got 'v/3'"),
        ("pairs.txt", "v/1 v/2 1\n", "must have pairs with 0 and pairs with 1, got one label only"),
    ],
)
def test_a_malformed_line_of_a_list_is_named(tmp_path, capsys, name, text, problem):
    (tmp_path / "list.txt").write_text("v/1\nv/2\n")
    np.save(tmp_path / "e.npy", np.eye(2, 4, dtype=np.float32))
    (tmp_path / name).write_text(text)
    option = "pairs" if name == "pairs.txt" else "people"
    if not (tmp_path / f"{option}.txt").exists():
        (tmp_path / f"{option}.txt").write_text("a\na\n")
    words = ["--embeddings", tmp_path / "e.npy", f"--{option}", tmp_path / f"{option}.txt"]
    assert run("list", tmp_path / "list.txt", *words) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {tmp_path / name}: {problem}") and error.count("\n") == 1


def test_an_entry_without_frames_and_a_command_without_work_are_refused(tmp_path, capsys):
    (tmp_path / "list.txt").write_text("v/1\nv/2\n")
    rows = np.eye(2, 4, dtype=np.float32)
    np.savez(tmp_path / "e.npz", names=["v/1/a.jpg", "w/2/a.jpg"], embeddings=rows)
    words = ["list", tmp_path / "list.txt", "--embeddings", tmp_path / "e.npz"]
    assert run(*words) == 2
    assert "there must be something to compute, got none of --people, -" in capsys.readouterr().err
    assert run(*words, "--write-features", tmp_path / "f.bin") == 2
    assert "must have an image, got none for 'v/2' (1 of 2 entries have" in capsys.readouterr().err
    assert not (tmp_path / "f.bin").exists()


def test_one_protocol_is_enough_and_mirror_images_can_be_left_out(ijbc, capsys):
    folder, lists, plain, mirrored = ijbc
    np.savez(folder / "e.npz", embs=plain, embs_f=mirrored)
    (folder / "IJBC" / "meta" / "ijbc_template_pair_label.txt").unlink()
    words = ["--embeddings", folder / "e.npz", "--protocols", "1:N", "--no-flip"]
    words += ["--fpirs", 0.1, "--ranks", 1, 5, "--json", folder / "r.json"]
    assert run("ijbc", folder, *words) == 0
    variants = json.loads((folder / "r.json").read_text())["variants"]
    assert list(variants) == ["N0D1F0"] and list(variants["N0D1F0"]) == ["identification"]
    templates = oracle(lists, plain, lists["scores"])
    check_identification(variants["N0D1F0"]["identification"], templates, lists)
    out = capsys.readouterr().out
    assert out.startswith("IJB-C 1:N, gallery G1\n") and "1:1" not in out


def test_pairs_of_one_kind_and_landmarks_in_one_point_are_refused(
    tmp_path, checkpoint, make_face, capsys
):
    lists = write_ijb(tmp_path, "ijbc")
    meta, images = tmp_path / "IJBC" / "meta", tmp_path / "IJBC" / "loose_crop"
    images.mkdir()
    for index in range(len(lists["media"])):
        (images / f"{index + 1}.jpg").write_bytes(make_face(0, 0))
    path = meta / "ijbc_name_5pts_score.txt"
    first, *lines = path.read_text().splitlines()
    path.write_text("\n".join([f"1.jpg {'40 ' * 10}{first.split()[-1]}", *lines]))
    words = ["--model", checkpoint, "--device", "cpu", "--protocols", "1:1"]
    assert run("ijbc", tmp_path, *words) == 2
    assert (
        f"error: {images}/1.jpg: must have five different landmarks, got one point; correct the "
        in capsys.readouterr().err
    )
    pairs = meta / "ijbc_template_pair_label.txt"
    for label in "01":
        pairs.write_text(f"1 2 {label}\n3 4 {label}\n")
        assert run("ijbc", tmp_path, *words) == 2
        assert capsys.readouterr().err == (
            f"error: {pairs}: must have pairs with label 0 and with label 1, got one label only; "
            "make the list again\n"
        )


def test_rows_without_names_must_be_those_of_the_list(tmp_path, capsys):
    (tmp_path / "list.txt").write_text("v/1\nv/2\n")
    np.save(tmp_path / "e.npy", np.eye(3, 4, dtype=np.float32))
    words = ["--embeddings", tmp_path / "e.npy", "--write-features", tmp_path / "f.bin"]
    assert run("list", tmp_path / "list.txt", *words) == 2
    assert capsys.readouterr().err == (
        f"error: {tmp_path}/e.npy: must have one row for each of the 2 entries of the list, or the "
        "names of the frames, got 3 rows; compute the embeddings again\n"
    )
    assert not (tmp_path / "f.bin").exists()
