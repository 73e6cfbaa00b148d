# SPDX-License-Identifier: Apache-2.0
"""python -m tools.data check: exit codes, the report, the clean set and refused folders."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipeline.records.open import open_records
from pipeline.records.writer import write_record_set
from tests.tools.data.planted_faults import SIZE, face, jpeg
from tools.data.__main__ import main


@pytest.fixture
def sets(tmp_path):
    """Return the folders of a sound set, and of a set with a duplicate and a grey image."""
    samples = [(p, jpeg(face(p, shot))) for p in range(3) for shot in range(3)]
    write_record_set(tmp_path / "sound", samples, 3, image_size=SIZE)
    samples[4], samples[7] = (1, samples[3][1]), (2, jpeg(face(9, 9, grey=True)))
    write_record_set(tmp_path / "faulty", samples, 3, image_size=SIZE)
    return tmp_path / "sound", tmp_path / "faulty"


def listing(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.iterdir()}


def test_findings_give_code_0_and_with_strict_code_2(sets, capsys):
    sound, faulty = sets
    assert main(["check", str(sound), "--strict"]) == 0
    assert main(["check", str(faulty)]) == 0
    output = capsys.readouterr().out
    assert "duplicate: key 5: it has the same bytes as the image of key 4\n" in output
    assert "grey: key 8: it has no colours\n" in output and "findings: 2\n" in output
    assert main(["check", str(faulty), "--strict"]) == 2


def test_the_report_and_the_clean_set_are_written(sets, tmp_path, capsys):
    faulty, out = sets[1], tmp_path / "out"
    before = listing(faulty)
    assert main(["check", str(faulty), "--out", str(out), "--leave-out", "grey"]) == 0
    assert f"faulty records: 7 of 9 images; report in {out}\n" in capsys.readouterr().out
    assert listing(faulty) == before
    report = json.loads((out / "report.json").read_text())
    assert report["counts"]["duplicate"] == 1 and report["clean_images"] == 7
    kinds = [(finding["kind"], finding["key"]) for finding in report["findings"]]
    assert kinds == [("duplicate", 5), ("grey", 8)]
    assert "duplicate: key 5: it has the same bytes" in (out / "report.txt").read_text()
    assert (out / "train.rec").is_symlink() and (out / "train.rec").samefile(faulty / "train.rec")
    records = open_records(out, tmp_path)
    assert records.keys.tolist() == [1, 2, 3, 4, 6, 7, 9]
    assert records.labels.tolist() == [0, 0, 0, 1, 1, 2, 2] and records.image_size == SIZE
    # The command may replace its own report, and the clean set has no findings.
    assert main(["check", str(out), "--strict"]) == 0
    assert main(["check", str(sets[0]), "--out", str(out)]) == 0
    assert json.loads((out / "report.json").read_text())["clean_images"] == 9


def test_a_dry_run_writes_nothing(sets, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["check", str(sets[1]), "--out", str(out), "--dry-run"]) == 0
    output = capsys.readouterr().out
    assert f"faulty records: 8 of 9 images; dry run: {out} is not written\n" in output
    assert not out.exists()


def test_a_folder_with_other_files_is_refused_before_the_check(sets, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    for out, says in (
        (sets[1], "must not be in the source"),
        (tmp_path / "file", "must be a folder"),
        (sets[0], "must be an empty folder"),
    ):
        before = listing(sets[1])
        assert main(["check", str(sets[1]), "--out", str(out)]) == 2
        error = capsys.readouterr().err
        assert error.startswith("error: ") and says in error and error.count("\n") == 1
        assert listing(sets[1]) == before


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--threads", "0"], "--threads: must be in 1..1024, got 0"),
        (["--leave-out", "near_duplicate"], "needs the option --near-duplicates, got none"),
    ],
)
def test_options_that_do_not_fit_are_refused(sets, options, says, capsys):
    assert main(["check", str(sets[0]), *options]) == 2
    assert says in capsys.readouterr().err


def test_a_set_without_a_sound_image_gets_a_report_and_no_index(tmp_path, capsys):
    write_record_set(tmp_path / "bad", [(0, jpeg(face(0, 0))[:-9])] * 2, 1, image_size=SIZE)
    out = tmp_path / "out"
    assert main(["check", str(tmp_path / "bad"), "--out", str(out)]) == 0
    assert "clean set: none" in capsys.readouterr().out
    assert sorted(p.name for p in out.iterdir()) == ["report.json", "report.txt"]


def test_a_missing_set_ends_with_one_sentence(tmp_path, capsys):
    assert main(["check", str(tmp_path / "none")]) == 2
    output, error = capsys.readouterr()
    assert not output and error.startswith("error: ") and error.count("\n") == 1
