# SPDX-License-Identifier: Apache-2.0
"""Files of embeddings: every supported form gives the same rows, every damaged one an error."""

from __future__ import annotations

import zipfile

import numpy as np
import pytest

from evaluation import embedding_files
from evaluation.embedding_files import find_rows, read_embeddings
from evaluation.opencv_matrices import write_features
from evaluation.row_sources import FileRows, RowError

VALUES = np.random.default_rng(0).standard_normal((6, 3)).astype(np.float32)
NAMES = np.array([f"/data/{kind}/{i}.jpg" for kind in "ab" for i in range(3)])


def save(path, **arrays) -> str:
    np.savez(path, **arrays)
    return str(path)


def test_all_forms_give_the_same_rows(tmp_path):
    np.save(tmp_path / "1.npy", VALUES.astype(np.float64))
    write_features(tmp_path / "2.bin", VALUES)
    save(tmp_path / "3.npz", names=NAMES, embeddings=VALUES, norms=np.arange(6.0))
    np.savez_compressed(tmp_path / "4.npz", embeddings=VALUES)
    save(tmp_path / "5.npz", embs=VALUES, embs_f=VALUES * 2, scores=[1])
    found = [read_embeddings(path) for path in sorted(tmp_path.iterdir())]
    for each in found:
        np.testing.assert_array_equal(each.rows.read(2, 5), VALUES[2:5])
    assert [isinstance(each.rows, FileRows) for each in found] == [True, True, True, False, True]
    assert found[2].names.tolist() == NAMES.tolist() and found[2].norms.tolist() == [*range(6)]
    assert found[2].rows.name(1).endswith("3.npz: /data/a/1.jpg")
    np.testing.assert_array_equal(found[4].mirrored.read(0, 6), VALUES * 2)


@pytest.mark.parametrize(
    "arrays, problem",
    [
        (dict(other=VALUES), "must have the array 'embeddings' or 'embs', got neither of them"),
        (dict(embeddings=VALUES[0]), "embeddings must be floating-point numbers of the shape (N, "),
        (dict(embeddings=VALUES.astype(int)), "embeddings must be floating-point numbers"),
        (dict(embeddings=VALUES[:0]), "there must be at least 1 embedding, got 0"),
        (dict(embeddings=VALUES.astype(object)), "embeddings must hold numbers or text, got Pyth"),
        (dict(embeddings=np.asfortranarray(VALUES)), "embeddings must be stored in C order, got F"),
        (dict(embeddings=VALUES, names=NAMES[:2]), "names must have 6 entries, got 2"),
        (dict(embeddings=VALUES, names=[1] * 6), "names must be text of the shape (N,), got int"),
        (dict(embeddings=VALUES, norms=NAMES), "norms must be floating-point numbers, got <U"),
        (dict(embs=VALUES, embs_f=VALUES[:2]), "embs_f must have 6 entries, got 2"),
    ],
)
def test_an_npz_file_without_usable_embeddings_is_refused(tmp_path, arrays, problem):
    path = save(tmp_path / "e.npz", **arrays)
    with pytest.raises(RowError) as error:
        read_embeddings(path)
    assert str(error.value).startswith(f"{path}: {problem}")


def test_damaged_files_are_refused_without_reading_what_they_declare(tmp_path):
    np.save(tmp_path / "a.npy", VALUES)
    content = (tmp_path / "a.npy").read_bytes()
    huge = content.replace(b"(6, 3), }" + b" " * 12, b"(6000000000000, 3), }")
    assert huge != content
    for name, data, problem in (
        ("b.npy", content[:-5], "array must have 72 bytes for the shape (6, 3), got 67 bytes"),
        ("c.npy", huge, "array must have 72000000000000 bytes for the shape (6000000000000, 3), "),
        ("d.npy", b"no array", "array must be a NumPy array, got "),
        ("e.npz", b"no archive", "the file cannot be read, got File is not a zip file"),
        ("f.txt", b"", "must end with .npz, .npy or .bin, got '.txt'"),
    ):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(RowError) as error:
            read_embeddings(tmp_path / name)
        assert str(error.value).startswith(f"{tmp_path / name}: {problem}"), error.value
    with pytest.raises(RowError, match="must be a file of embeddings, got no such file"):
        read_embeddings(tmp_path / "none.npy")


def test_a_compressed_array_larger_than_the_memory_is_refused(tmp_path, monkeypatch):
    with zipfile.ZipFile(tmp_path / "e.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        with archive.open("embeddings.npy", "w") as file:
            np.lib.format.write_array(file, np.zeros((1000, 512), np.float32))
    monkeypatch.setattr(embedding_files.os, "sysconf", lambda name: 1000)
    with pytest.raises(RowError, match="must fit into half the memory, got 2048000 bytes"):
        read_embeddings(tmp_path / "e.npz")


def test_rows_are_found_by_the_end_of_the_path(tmp_path):
    path = save(tmp_path / "e.npz", names=NAMES, embeddings=VALUES)
    found = read_embeddings(path)
    assert find_rows(found, ["b/1.jpg", "a/0.jpg"], "list").tolist() == [4, 0]
    for name, got in (("1.jpg", "several embeddings"), ("c/1.jpg", "no embedding")):
        with pytest.raises(RowError, match=f"'{name}' of list must have one embedding, got {got}"):
            find_rows(found, [name], "list")
    np.save(tmp_path / "e.npy", VALUES)
    with pytest.raises(RowError, match="must have one row for each of the 2 images of list, got 6"):
        find_rows(read_embeddings(tmp_path / "e.npy"), ["a", "b"], "list")


@pytest.mark.parametrize("name", ["names", "norms"])
def test_an_array_with_changed_bytes_is_refused(tmp_path, name):
    names, rows = np.array([f"a/{i}.jpg" for i in range(2000)]), np.ones((2000, 3))
    path = save(tmp_path / "e.npz", names=names, embeddings=rows, norms=np.arange(2000.0))
    with zipfile.ZipFile(path) as archive:
        content = archive.read(f"{name}.npy")
    data = (tmp_path / "e.npz").read_bytes()
    at = data.index(content) + len(content) - 8
    (tmp_path / "e.npz").write_bytes(data[:at] + b"?" + data[at + 1 :])
    with pytest.raises(RowError) as error:
        read_embeddings(path)
    problem = f"{path}: {name} is damaged, got Bad CRC-32 for file '{name}.npy'; "
    assert str(error.value).startswith(problem)
