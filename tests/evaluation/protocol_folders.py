# SPDX-License-Identifier: Apache-2.0
"""Small folders in the exact layouts of public protocols, with embeddings of the images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from evaluation.protocols.megaface_features import write_feature_folder

SIZE = 8
SUFFIX = "_net.bin"


def people_rows(rng: np.random.Generator, people: Sequence[int], noise: float = 0.6) -> np.ndarray:
    """Return an embedding for each number of a person; people with equal numbers are near."""
    centres = np.random.default_rng(9).standard_normal((max(people, default=0) + 1, SIZE))
    rows = centres[np.array(people, int)] + noise * rng.standard_normal((len(people), SIZE))
    return rows.astype(np.float32)


def write_megaface(folder: Path) -> dict[str, list[str]]:
    """Write lists, noise lists and feature folders of MegaFace; return the image paths."""
    rng = np.random.default_rng(0)
    people = [person for person in range(5) for _ in range(4)]
    probes = [f"Person_{person}/Person_{person}_{i}.png" for i, person in enumerate(people)]
    distractors = [f"{i % 3}/{i % 7}@N/{i}.jpg" for i in range(120)]
    write_feature_folder(folder / "facescrub", probes, people_rows(rng, people), SUFFIX)
    rows = rng.standard_normal((120, SIZE)).astype(np.float32)
    rows[::10] = people_rows(rng, [i % 5 for i in range(12)], 0.1)  # distractors that are people
    write_feature_folder(folder / "megaface", distractors, rows, SUFFIX)
    (folder / "facescrub_lst").write_text("".join(f"aligned/{name}\n" for name in probes))
    (folder / "megaface_lst").write_text("\n".join(distractors))
    (folder / "facescrub_noises.txt").write_text(
        f"# mislabelled\n{probes[1].split('/')[1]}\n{probes[14].split('/')[1]}\n"
    )
    lines = [f"{i}\t{distractors[i]}" if i % 20 else distractors[i] for i in range(0, 120, 10)]
    (folder / "megaface_noises.txt").write_text("# people\n" + "\n".join(lines[:8]))
    return {"probes": probes, "distractors": distractors}


def write_tinyface(folder: Path) -> dict[str, list[str]]:
    """Write the folder Testing_Set of TinyFace with empty images; return the image paths."""
    from scipy.io import savemat

    people = {"Gallery_Match": [3, 3, 5, 8, 8, 8, 9, 11], "Probe": [3, 5, 5, 8, 9, 11, 11]}
    found = {}
    for kind, stem in (("Gallery_Match", "gallery_match"), ("Probe", "probe")):
        names = [f"{person}_{i}.jpg" for i, person in enumerate(people[kind])]
        key = "gallery" if stem.startswith("gallery") else "probe"
        cells = np.array(names, object).reshape(-1, 1)
        ids = np.array(people[kind], np.uint16).reshape(-1, 1)
        folder.mkdir(parents=True, exist_ok=True)
        savemat(folder / f"{stem}_img_ID_pairs.mat", {f"{key}_set": cells, f"{key}_ids": ids})
        found[kind] = [f"{kind}/{name}" for name in names]
    found["Gallery_Distractor"] = [f"Gallery_Distractor/d{i}.jpg" for i in range(30)]
    for name in (name for listed in found.values() for name in listed):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).touch()
    return found


def write_ijb(folder: Path, subset: str) -> dict[str, np.ndarray]:
    """Write the folder meta of IJB-B or IJB-C; return what the lists contain."""
    rng = np.random.default_rng(1)
    galleries = {"ijbb": ("S1", "S2"), "ijbc": ("G1", "G2")}[subset]
    meta = folder / {"ijbb": "IJBB", "ijbc": "IJBC"}[subset] / "meta"
    meta.mkdir(parents=True)
    # Templates 1 to 60 of 20 subjects: 1-10 gallery 1, 11-20 gallery 2, 21-60 probes.
    subject = {t: 100 + (t - 1) % 20 for t in range(1, 61)}
    templates = np.repeat(np.arange(1, 61), rng.integers(1, 6, 60))
    media = rng.integers(69500, 69503, len(templates))
    scores = rng.uniform(0.1, 1, len(templates)).round(3)
    points = rng.uniform(30, 90, (len(templates), 10)).round(3)
    with (meta / f"{subset}_face_tid_mid.txt").open("w") as file:
        file.writelines(f"{i}.jpg {t} {m}\n" for i, (t, m) in enumerate(zip(templates, media), 1))
    with (meta / f"{subset}_name_5pts_score.txt").open("w") as file:
        for i, (values, score) in enumerate(zip(points, scores), 1):
            file.write(f"{i}.jpg {' '.join(f'{v:.3f}' for v in values)} {score}\n")
    pairs = rng.integers(1, 61, (300, 2))
    pairs[:40, 1] = (pairs[:40, 0] + 19) % 60 + 1
    same = np.array([subject[a] == subject[b] for a, b in pairs])
    with (meta / f"{subset}_template_pair_label.txt").open("w") as file:
        file.writelines(f"{a} {b} {s:d}\n" for (a, b), s in zip(pairs, same))
    lists = (*zip(galleries, ((1, 11), (11, 21))), ("probe_mixed", (21, 61)))
    for name, (first, last) in lists:
        stem = name if name == "probe_mixed" else f"gallery_{name}"
        with (meta / f"{subset}_1N_{stem}.csv").open("w") as file:
            file.write("TEMPLATE_ID,SUBJECT_ID,FILENAME,SIGHTING_ID\n")
            for template in range(first, last):  # one line per image
                line = f"{template},{subject[template]},img/{template}.jpg,1\n"
                file.write(line * (1 + template % 3))
    return {
        "templates": templates,
        "media": media,
        "scores": scores,
        "points": points.reshape(-1, 5, 2),
        "pairs": pairs,
        "same": same,
        "subjects": np.array([0, *(subject[t] for t in range(1, 61))]),
    }


def write_ytf(folder: Path) -> dict[str, object]:
    """Write splits.txt of YouTube Faces; return its videos and pairs."""
    rng = np.random.default_rng(2)
    videos = [f"Person_{p}/{n}" for p in range(12) for n in range(3)]
    pairs, same = [], []
    for index in range(100):
        first = int(rng.integers(36))
        near = index % 2 == 0
        second = first // 3 * 3 + (first + 1) % 3 if near else (first + 3 + 3 * index) % 36
        near = first // 3 == second // 3
        pairs.append((first, second))
        same.append(near)
    with (folder / "splits.txt").open("w") as file:
        file.write("split number, pair number, first name, second name, is same\n")
        for index, ((a, b), s) in enumerate(zip(pairs, same)):
            line = f"{index // 10 + 1}, {index % 10 + 1}, {videos[a]}, {videos[b]}, {s:d}\n"
            file.write(line)
    return {"videos": videos, "pairs": np.array(pairs), "same": np.array(same)}
