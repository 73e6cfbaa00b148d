# SPDX-License-Identifier: Apache-2.0
"""Command identify, end to end: folders in the layouts of the protocols, against slow oracles."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import cv2
import numpy as np
import pytest

from evaluation import __main__ as command
from evaluation.opencv_matrices import read_feature, write_feature
from evaluation.protocols.megaface_lists import read_image_list
from evaluation.text_lists import ListError
from interchange import load_embedder
from tests.evaluation.protocol_folders import (
    SUFFIX,
    people_rows,
    write_megaface,
    write_tinyface,
)
from tests.evaluation.slow_oracles import average_precision, rank, tar, unit


def run(*words: object) -> int:
    return command.main(["identify", *map(str, words)])


def megaface(folder: Path, *words: object) -> int:
    return run(
        "megaface",
        *("--probes", folder / "facescrub", "--probe-list", folder / "facescrub_lst"),
        *("--distractors", folder / "megaface", "--distractor-list", folder / "megaface_lst"),
        *words,
    )


def noise_options(folder: Path) -> list[object]:
    return [
        *("--probe-noises", folder / "facescrub_noises.txt"),
        *("--distractor-noises", folder / "megaface_noises.txt"),
    ]


def test_megaface_rates_are_those_of_a_loop_over_all_searches(tmp_path, capsys):
    names = write_megaface(tmp_path)
    options = ["--suffix", SUFFIX, "--sizes", 10, 120, "--ranks", 1, 3, "--fars", 0.01, 0.1]
    files = [f"--{name}={tmp_path}/out.{name}" for name in ("json", "markdown", "latex")]
    noises = noise_options(tmp_path)
    assert megaface(tmp_path, *options, *files, *noises, "--noise-rule", "remove") == 0
    report = json.loads((tmp_path / "out.json").read_text())

    noisy = {names["probes"][1], names["probes"][14]}
    dropped = {names["distractors"][i] for i in range(0, 80, 10)}
    probes = [name for name in names["probes"] if name not in noisy]
    features = [unit(read_feature(tmp_path / f"facescrub/{n}{SUFFIX}")) for n in probes]
    genuine, impostors = [], []
    for size in (10, 120):
        kept = [name for name in names["distractors"][:size] if name not in dropped]
        rows = [unit(read_feature(tmp_path / f"megaface/{n}{SUFFIX}")) for n in kept]
        ranks = []
        for i, probe in enumerate(probes):
            others = [float(features[i] @ row) for row in rows]
            for j, mate in enumerate(probes):
                if i != j and mate.split("/")[0] == probe.split("/")[0]:
                    ranks.append(rank(float(features[i] @ features[j]), others))
                    genuine += [float(features[i] @ features[j])] * (size == 120)
            impostors += others * (size == 120)
        found = report["sizes"][str(size)]
        assert found["distractors"] == len(kept)
        assert found["rank_1"] == pytest.approx(np.mean(np.array(ranks) <= 1))
        assert found["rank_3"] == pytest.approx(np.mean(np.array(ranks) <= 3))
    assert 0 < report["sizes"]["120"]["rank_1"] < report["sizes"]["120"]["rank_3"] < 1
    assert report["pairs"] == len(genuine) and report["impostor_pairs"] == len(impostors)
    for point in report["roc"]:
        assert point["tar"] == pytest.approx(tar(genuine, impostors, point["far"]))
    assert report["noise"] == {"rule": "remove", "probes": 2, "distractors": 8}
    out = capsys.readouterr().out
    assert out.startswith("MegaFace: 18 probes of 5 people\n") and "120 distractors" in out
    rate = f"{100 * report['sizes']['120']['rank_1']:.2f}"
    assert f"| 120 distractors | {rate} | " in (tmp_path / "out.markdown").read_text()
    assert rf"120 distractors & {rate} & " in (tmp_path / "out.latex").read_text()


def test_the_rule_replace_scores_as_insightface_cleaned_features_do(tmp_path):
    """Values that remove_noises.py appends: 0 to a clean feature, 100 to a noisy distractor."""
    names = write_megaface(tmp_path)
    noises = noise_options(tmp_path)
    report, other = tmp_path / "a.json", tmp_path / "b.json"
    assert megaface(tmp_path, "--suffix", SUFFIX, *noises, "--json", report) == 0
    clean = tmp_path / "clean"
    for kind in ("facescrub", "megaface"):
        listed = names["probes" if kind == "facescrub" else "distractors"]
        dropped = {names["distractors"][i] for i in range(0, 80, 10)}
        centres = {}
        for name in listed:
            row = np.append(unit(read_feature(tmp_path / kind / f"{name}{SUFFIX}")), 0)
            if name in dropped:
                row[-1] = 100
            path = clean / kind / f"{name}{SUFFIX}"
            path.parent.mkdir(parents=True, exist_ok=True)
            write_feature(path, row)
            if name not in (names["probes"][1], names["probes"][14]):
                person = name.split("/")[0]
                centres[person] = centres.get(person, 0) + row
        for name in (names["probes"][1], names["probes"][14]) * (kind == "facescrub"):
            write_feature(clean / kind / f"{name}{SUFFIX}", unit(centres[name.split("/")[0]]))
        (clean / f"{kind}_lst").write_text("\n".join(listed))
    assert megaface(clean, "--suffix", SUFFIX, "--json", other) == 0
    ours, theirs = (json.loads(path.read_text())["sizes"]["120"] for path in (report, other))
    assert ours["rank_1"] == theirs["rank_1"] and ours["rank_10"] == theirs["rank_10"]


def test_lists_of_the_development_kit_and_files_of_embeddings_are_supported(tmp_path):
    names = write_megaface(tmp_path)
    (tmp_path / "probes.json").write_text(json.dumps({"id": [], "path": names["probes"]}))
    (tmp_path / "d.json_120_1").write_text(json.dumps({"path": names["distractors"]}))
    for kind, listed in (("facescrub", names["probes"]), ("megaface", names["distractors"])):
        rows = [read_feature(tmp_path / kind / f"{name}{SUFFIX}") for name in listed]
        order = np.random.default_rng(0).permutation(len(rows))
        paths = np.array([f"/data/{kind}/{name}" for name in listed])
        np.savez(tmp_path / f"{kind}.npz", names=paths[order], embeddings=np.stack(rows)[order])
    reports = [tmp_path / "a.json", tmp_path / "b.json"]
    assert megaface(tmp_path, "--suffix", SUFFIX, "--json", reports[0]) == 0
    assert 0 == run(
        "megaface",
        *("--probes", tmp_path / "facescrub.npz", "--probe-list", tmp_path / "probes.json"),
        *("--distractors", tmp_path / "megaface.npz"),
        *("--distractor-list", tmp_path / "d.json_120_1", "--json", reports[1]),
    )
    one, two = (json.loads(path.read_text()) for path in reports)
    assert one == two and list(one["sizes"]) == ["10", "100", "120"]


def test_a_model_embeds_the_images_and_writes_features_for_the_kit(
    tmp_path, checkpoint, make_face, capsys
):
    probes = ["Ann/1.jpg", "Ann/2.jpg", "Bob/1.jpg", "Bob/2.jpg"]
    distractors = ["0/1@N/a.jpg", "0/2@N/b.jpg", "1/1@N/c.jpg"]
    for index, name in enumerate([*probes, *distractors]):
        path = tmp_path / ("facescrub" if index < 4 else "megaface") / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(make_face(index // 2, index))
    (tmp_path / "facescrub_lst").write_text("\n".join(probes))
    (tmp_path / "megaface_lst").write_text("\n".join(distractors))
    model = ["--model", checkpoint, "--device", "cpu", "--suffix", SUFFIX]
    reports = [tmp_path / "a.json", tmp_path / "b.json"]
    features = ["--write-features", tmp_path / "features", "--json", reports[0]]
    assert megaface(tmp_path, *model, *features) == 0
    embedder = load_embedder(checkpoint, flip=True, device="cpu")
    pixels = cv2.imread(str(tmp_path / "megaface/1/1@N/c.jpg"))[None, ..., ::-1]
    written = (tmp_path / f"features/megaface/1/1@N/c.jpg{SUFFIX}").read_bytes()
    assert written[:16] == struct.pack("<4i", 8, 1, 4, 5)
    np.testing.assert_allclose(np.frombuffer(written[16:], "<f4"), embedder(pixels)[0], atol=1e-5)
    for name in ("facescrub_lst", "megaface_lst"):
        (tmp_path / "features" / name).write_text((tmp_path / name).read_text())
    assert megaface(tmp_path / "features", "--suffix", SUFFIX, "--json", reports[1]) == 0
    one, two = (json.loads(path.read_text()) for path in reports)
    assert one["sizes"] == two["sizes"]
    before = {*tmp_path.rglob("*")}
    assert megaface(tmp_path, *model, "--json", reports[1]) == 0
    assert json.loads(reports[1].read_text()) == one and {*tmp_path.rglob("*")} == before
    (tmp_path / "megaface/0/2@N/b.jpg").unlink()
    assert megaface(tmp_path, *model) == 2
    assert capsys.readouterr().err.endswith(
        f"error: {tmp_path}/megaface/0/2@N/b.jpg: must be an image file, got no such file; correct "
        "the lists\n"
    )


@pytest.mark.parametrize(
    "name, old, new, problem",
    [
        ("facescrub_lst", "aligned/Person_1/", "", "line 5: must be a path folder/image, got 'P"),
        ("facescrub_lst", "Person_1_5", "Person_1_4", "line 6: must differ from all other lines"),
        ("megaface_lst", "1/1@N/1.jpg", "1.jpg", "line 2: must be a path folder/folder/image, go"),
        ("megaface_lst", "1/1@N/1.jpg", "../1@N/1.jpg", "line 2: must be a path folder/folder/im"),
        ("megaface_noises.txt", "10\t1/3@N/10.jpg", "10\t10.jpg", "line 3: must be a path folder"),
    ],
)
def test_a_malformed_line_is_named_with_file_and_number(tmp_path, capsys, name, old, new, problem):
    write_megaface(tmp_path)
    text = (tmp_path / name).read_text()
    assert old in text
    (tmp_path / name).write_text(text.replace(old, new, 1))
    if name == "facescrub_lst" and not new:
        (tmp_path / name).write_text(text.replace("aligned/Person_1/", "", 1))
    assert megaface(tmp_path, "--suffix", SUFFIX, *noise_options(tmp_path)) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {tmp_path / name}: {problem}") and error.count("\n") == 1


def test_a_duplicate_in_a_json_list_is_named_by_its_entry(tmp_path):
    path = tmp_path / "facescrub.json"
    path.write_text(json.dumps({"path": ["a/1.jpg", "b/1.jpg", "c/a/1.jpg"]}, indent=1))
    with pytest.raises(ListError) as caught:
        read_image_list(path, 2)
    assert str(caught.value) == (
        f"{path}: entry 3: must differ from all other entries, got 'a/1.jpg' as in entry 1; remove "
        "one of the two entries"
    )


@pytest.mark.parametrize(
    "words, problem",
    [
        ([], "--suffix: the end of the names of the feature files in "),
        (["--suffix", "_b.bin"], "{}/facescrub/Person_0/Person_0_0.png_b.bin: the file cannot be "),
        (
            ["--suffix", SUFFIX, "--sizes", 121],
            "--sizes: each number must be between 1 and 120, ",
        ),
        (
            ["--suffix", SUFFIX, "--resize"],
            "--resize: concerns images that a model embeds, got no --",
        ),
        (["--suffix", SUFFIX, "--fars", 0], "--fars: each rate must be above 0 and below 1, got 0"),
        (["--suffix", SUFFIX, "--ranks", 0], "--ranks: each rank must be from 1 to 1000, got 0"),
        (["--suffix", SUFFIX, "--write-features", "x"], "--write-features: needs --model and --su"),
        (
            ["--model", "x", "--suffix", SUFFIX, "--write-features", "facescrub_lst"],
            "--write-features: must be a folder with write access, or a new folder in such a f",
        ),
        (
            ["--model", "x", "--suffix", SUFFIX, "--write-features", "no/a"],
            "--write-features: must be a folder with write access, or a new folder in such a f",
        ),
        (["--suffix", SUFFIX, "--json", "no/a"], "--json: the folder of the file does not exist"),
        (["--suffix", SUFFIX, "--json=a", "--latex=a"], "--latex: must name another file than --j"),
    ],
)
def test_usage_errors_are_one_sentence(tmp_path, capsys, monkeypatch, words, problem):
    monkeypatch.chdir(tmp_path)
    write_megaface(tmp_path)
    assert megaface(tmp_path, *words) == 2
    out, error = capsys.readouterr()
    assert out == "" and error.startswith(f"error: {problem.format(tmp_path)}")
    assert error.count("\n") == 1 and not (tmp_path / "a").exists()


@pytest.mark.parametrize(
    "content, problem",
    [
        (struct.pack("<4i5f", 5, 1, 4, 5, *range(5)), "must have 8 values as "),
        (
            struct.pack("<4i7f", 8, 1, 4, 5, *range(7)),
            "must have 48 bytes for 8 x 1 values, got 44",
        ),
        (
            struct.pack(">4i8f", 8, 1, 4, 5, *range(8)),
            "the type must be 5 (32-bit floats), got 8388",
        ),
        (
            struct.pack("<4i8f", 8, 1, 4, 5, *[np.nan] * 8),
            "all values must be finite, got NaN, inf",
        ),
        (
            struct.pack("<4i8f", 8, 1, 4, 5, *[0] * 8),
            "the embedding cannot be normalised, got L2 norm 0",
        ),
        (
            struct.pack("<4i", 1 << 30, 1 << 30, 1 << 2, 5),
            "a row must have 4294967296 bytes, got 4",
        ),
        (b"", "must have a header of 16 bytes, got 0 bytes"),
    ],
    ids=["size", "cut", "big-endian", "nan", "zero", "huge", "empty"],
)
def test_a_wrong_feature_is_refused_by_file(tmp_path, capsys, content, problem):
    names = write_megaface(tmp_path)
    path = tmp_path / "megaface" / f"{names['distractors'][50]}{SUFFIX}"
    path.write_bytes(content)
    assert megaface(tmp_path, "--suffix", SUFFIX) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {path}: {problem}") and error.count("\n") == 1


def test_a_noise_list_of_other_images_is_noticed(tmp_path, capsys):
    write_megaface(tmp_path)
    (tmp_path / "facescrub_noises.txt").write_text("Person_7_1.png\n")
    assert megaface(tmp_path, "--suffix", SUFFIX, *noise_options(tmp_path)) == 0
    notice = f"evaluation: {tmp_path}/facescrub_noises.txt: names none of the probes\n"
    assert capsys.readouterr().err == notice


def test_a_noise_list_that_leaves_no_distractor_is_refused(tmp_path, capsys):
    names = write_megaface(tmp_path)
    (tmp_path / "megaface_noises.txt").write_text("\n".join(names["distractors"]))
    assert megaface(tmp_path, "--suffix", SUFFIX, *noise_options(tmp_path)) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: distractors: at least one must remain, got a noise list")


def test_tinyface_rates_are_those_of_a_sorted_list(tmp_path):
    lists = write_tinyface(tmp_path / "Testing_Set")
    rng = np.random.default_rng(4)
    names = [name for listed in lists.values() for name in listed]
    known = [0 if "/d" in name else int(name.split("/")[1].split("_")[0]) for name in names]
    rows = people_rows(rng, known, 1.2)
    order = rng.permutation(len(names))
    paths = np.array([f"/x/Testing_Set/{name}" for name in names])
    np.savez(tmp_path / "e.npz", names=paths[order], embeddings=rows[order])
    report = tmp_path / "report.json"
    words = ["--embeddings", tmp_path / "e.npz", "--ranks", 1, 2, 5, "--json", report]
    assert run("tinyface", tmp_path / "Testing_Set", *words) == 0
    found = json.loads(report.read_text())
    scores = dict(zip(names, unit(rows)))
    gallery = [*lists["Gallery_Match"], *lists["Gallery_Distractor"]]
    ranks, precisions = [], []
    for name in lists["Probe"]:
        label = f"/{name.split('/')[1].split('_')[0]}_"
        mates = [label in other for other in gallery]
        values = [float(scores[name] @ scores[other]) for other in gallery]
        best = max(v for v, m in zip(values, mates) if m)
        ranks.append(rank(best, [v for v, m in zip(values, mates) if not m]))
        precisions.append(average_precision(values, mates))
    for k in (1, 2, 5):
        assert found[f"rank_{k}"] == pytest.approx(np.mean(np.array(ranks) <= k))
    assert found["mean_average_precision"] == pytest.approx(np.mean(precisions))
    assert (found["mated_probes"], found["gallery"], found["distractors"]) == (7, 8, 30)


def test_tinyface_reads_images_with_a_model(tmp_path, checkpoint, make_face, capsys):
    lists = write_tinyface(tmp_path)
    for index, name in enumerate(n for listed in lists.values() for n in listed):
        (tmp_path / name).write_bytes(make_face(index % 4, index, (20, 16)))
    model = ["--model", checkpoint, "--device", "cpu"]
    assert run("tinyface", tmp_path, *model) == 2
    assert "the model takes aligned faces of 112x112 pixels" in capsys.readouterr().err
    assert run("tinyface", tmp_path, *model, "--resize") == 0
    assert capsys.readouterr().out.startswith("TinyFace: 7 probes, 8 gallery images and 30 dist")


def test_damaged_lists_of_tinyface_are_refused(tmp_path, capsys):
    from scipy.io import savemat

    lists = write_tinyface(tmp_path)
    path = tmp_path / "probe_img_ID_pairs.mat"
    names = np.array([n.split("/")[1] for n in lists["Probe"]], object).reshape(-1, 1)
    good = path.read_bytes()
    cases = [
        (b"", "must be a MATLAB 5 file, got "),
        (good[:200], "must be a MATLAB 5 file, got "),
        (dict(probe_set=names), "must have the variable 'probe_ids', got none of that name"),
        (dict(probe_set=names, probe_ids=np.ones((3, 1))), "probe_set and probe_ids must have the"),
        (dict(probe_set=names, probe_ids=np.full((7, 1), 0.5)), "probe_ids must hold integers fro"),
        (dict(probe_set=names, probe_ids=np.full((7, 1), np.nan)), "probe_ids must hold integers"),
        (dict(probe_set=names, probe_ids=np.full((7, 1), 77)), "each probe's person must be in th"),
        (bytes(5 << 20), "must have at most 4194304 bytes, got 5242880"),
        (dict(probe_set=names * 0, probe_ids=np.ones((7, 1))), "probe_set must hold file names"),
    ]
    for content, problem in cases:
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            savemat(path, content)
        assert run("tinyface", tmp_path, "--embeddings", tmp_path / "e.npz") == 2
        error = capsys.readouterr().err
        assert error.startswith(f"error: {path}: {problem}") and error.count("\n") == 1, error


def test_people_are_identified_by_the_folders_of_their_images(tmp_path, capsys):
    rng = np.random.default_rng(0)
    gallery = [f"g/{p}/0.jpg" for p in "abcdefgh"]
    probes = [f"p/{p}/{i}.jpg" for i in range(4) for p in "abcdefghxyz"]
    for name, listed in (("gallery", gallery), ("probes", probes)):
        rows = people_rows(rng, ["abcdefghxyz".index(n.split("/")[1]) for n in listed], 0.5)
        np.savez(tmp_path / f"{name}.npz", names=listed, embeddings=rows)
    np.save(tmp_path / "d.npy", people_rows(rng, [20] * 9))
    words = [f"--{n}={tmp_path / n}.npz" for n in ("gallery", "probes")]
    report = tmp_path / "r.json"
    extra = ["--distractors", tmp_path / "d.npy", "--fpirs", 0.1, 0.2, "--json", report]
    assert run("people", *words, *extra) == 0
    found = json.loads(report.read_text())
    assert (found["mated_probes"], found["unmated_probes"], found["distractors"]) == (32, 12, 9)
    assert 0 < found["tpir_at_fpir_0.1"] <= found["tpir_at_fpir_0.2"] <= found["rank_1"]
    people = tmp_path / "people.txt"
    people.write_text("\n".join(name.split("/")[1] for name in probes))
    other = tmp_path / "s.json"
    assert run("people", *words, *extra[:-1], other, "--probe-people", people) == 0
    assert json.loads(other.read_text()) == found
    people.write_text("a\nb\n")
    assert run("people", *words, "--probe-people", people) == 2
    assert "must have one name for each of the 44 embeddings of" in capsys.readouterr().err
    assert run("people", "--gallery", tmp_path / "d.npy", words[1]) == 2
    assert "the person of each embedding must be known" in capsys.readouterr().err
    assert run("people", "--gallery", tmp_path / "probes.npz", words[1]) == 2
    assert "--gallery: must differ from --probes, since " in capsys.readouterr().err
    assert run("people", "--gallery", tmp_path, words[1]) == 2
    assert "a folder of images needs --model, got no --model" in capsys.readouterr().err


def test_people_are_identified_with_a_model(tmp_path, checkpoint, make_face, capsys):
    for kind, shots in (("gallery", 1), ("probes", 2)):
        for person in range(3):
            for shot in range(shots):
                path = tmp_path / kind / str(person) / f"{shot}.jpg"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(make_face(person, shot))
    words = [f"--{kind}={tmp_path / kind}" for kind in ("gallery", "probes")]
    assert run("people", *words, "--model", checkpoint, "--device", "cpu") == 0
    out = capsys.readouterr().out
    assert out.startswith("Identification: 6 probes with and 0 without mate, 3 gallery images")


@pytest.mark.parametrize(
    "words, problem",
    [
        (
            ["--probes=a.npz", "--distractors=b.npy", "--suffix", SUFFIX],
            f"--suffix: is for folders of features, got '{SUFFIX}' and files of embeddings only; ",
        ),
        (
            ["--probes=a.npz", "--distractors=images", "--model=x"],
            "--model: --probes and --distractors must be folders of images, got a file of embed",
        ),
        (
            ["--probes=p", "--distractors=d", "--model=x", "--suffix=a/b", "--write-features=f"],
            "--suffix: must be the end of a file name, got 'a/b'; omit the slash",
        ),
    ],
)
def test_options_that_do_not_suit_the_rows_are_refused(
    tmp_path, capsys, monkeypatch, words, problem
):
    monkeypatch.chdir(tmp_path)
    assert run("megaface", "--probe-list=p.txt", "--distractor-list=d.txt", *words) == 2
    out, error = capsys.readouterr()
    assert out == "" and error.startswith(f"error: {problem}") and error.count("\n") == 1


def test_damaged_distractors_and_repeated_images_of_tinyface_are_refused(tmp_path, capsys):
    from scipy.io import savemat

    write_tinyface(tmp_path)
    words = ["tinyface", tmp_path, "--embeddings", tmp_path / "e.npz"]
    folder = tmp_path / "Gallery_Distractor"
    for path in folder.iterdir():
        path.rename(folder / f".{path.name}")
    assert run(*words) == 2
    assert capsys.readouterr().err == (
        f"error: {folder}: must contain images, got none; unpack TinyFace again\n"
    )
    folder.rename(tmp_path / "elsewhere")
    assert run(*words) == 2
    assert capsys.readouterr().err == (
        f"error: {folder}: the folder of the distractors cannot be listed, got 'No such file or "
        "directory'; name the folder Testing_Set of TinyFace\n"
    )
    names = np.array([["b.jpg"], ["a.jpg"], ["a.jpg"]], object)
    path = tmp_path / "probe_img_ID_pairs.mat"
    savemat(path, {"probe_set": names, "probe_ids": np.array([[3], [5], [8]])})
    assert run(*words) == 2
    assert capsys.readouterr().err == (
        f"error: {path}: each image must be listed once, got 'a.jpg' several times; unpack "
        "TinyFace again\n"
    )


def test_people_without_folders_and_a_model_without_images_are_refused(tmp_path, capsys):
    for name, listed in (("gallery", ["a/1.jpg", "b/1.jpg"]), ("probes", ["a/2.jpg", "2.jpg"])):
        np.savez(tmp_path / f"{name}.npz", names=listed, embeddings=np.eye(2, 4))
    words = [f"--{n}={tmp_path / n}.npz" for n in ("gallery", "probes")]
    assert run("people", *words) == 2
    assert capsys.readouterr().err == (
        f"error: {tmp_path}/probes.npz: the folder of each image must name its person, got "
        "'2.jpg'; give --probe-people and --gallery-people\n"
    )
    assert run("people", *words, "--model", tmp_path) == 2
    assert capsys.readouterr().err == (
        "error: --model: is needed for folders of images only, got files of embeddings only; omit "
        "--model\n"
    )
