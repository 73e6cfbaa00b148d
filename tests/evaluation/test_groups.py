# SPDX-License-Identifier: Apache-2.0
"""Groups of a set: their file, errors within a group, and false matches between groups."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from evaluation.groups import (
    cross_group_rates,
    find_groups_of,
    group_errors,
    groups_path,
    write_groups,
)
from evaluation.pairs import Pairs, PairsError
from evaluation.people import write_people
from evaluation.verification import pair_distances

NAMES = ("African", "Asian", "Indian")


@pytest.fixture
def made(tmp_path):
    """Return a set of 60 pairs of 12 people in three groups, and embeddings of its images."""
    rng = np.random.default_rng(0)
    issame = np.arange(60) % 2 == 0
    people = rng.integers(0, 12, (60, 2))
    people[issame, 1] = people[issame, 0]
    people[~issame, 1] = (people[~issame, 0] + 1 + people[~issame, 1] % 11) % 12
    people = people.reshape(-1)
    shots = rng.integers(0, 3, 120)
    images = [f"{p}-{s}".encode() for p, s in zip(people, shots, strict=True)]
    pairs = Pairs(images, issame, str(tmp_path / "rfw.bin"))
    write_people(pairs.path, people)
    write_groups(pairs.path, [NAMES[person % 3] for person in people])
    table = rng.normal(size=(12, 1, 4)) + rng.normal(size=(12, 3, 4))
    return pairs, people, table[people, shots]


def test_errors_within_a_group_are_those_of_its_pairs(made):
    pairs, people, embeddings = made
    groups = find_groups_of(pairs)
    assert list(groups.names) == list(NAMES) and not groups.mixed
    distances, sides = pair_distances(embeddings), people.reshape(-1, 2)
    found = group_errors(1.5, distances, pairs.issame, groups=groups, people=sides)
    for number, name in enumerate(NAMES):
        inside = (sides % 3 == number).all(axis=1)
        right = (distances < 1.5) == pairs.issame
        assert found[name]["accuracy"]["rate"] == pytest.approx(right[inside].mean())
        assert found[name]["accuracy"]["pairs"] == inside.sum()


def test_false_matches_between_groups_count_all_images_of_known_people(made, monkeypatch):
    pairs, people, embeddings = made
    monkeypatch.setattr("evaluation.groups.BLOCK_IMAGES", 5)
    distances, groups = pair_distances(embeddings), find_groups_of(pairs)
    found = cross_group_rates(1.0, distances, pairs, groups=groups, embeddings=embeddings)
    distinct = {image: index for index, image in enumerate(pairs.images)}
    totals, matches = np.zeros((2, 3, 3), int)
    for one, two in combinations(distinct.values(), 2):
        if people[one] != people[two]:
            near = pair_distances(embeddings[[one, two]])[0] < 1.0
            for a, b in {(one, two), (two, one)} if people[one] % 3 != people[two] % 3 else [(one, two)]:  # noqa: E501  # fmt: skip
                totals[people[a] % 3, people[b] % 3] += 1
                matches[people[a] % 3, people[b] % 3] += near
    assert found["pairs"] == totals.tolist() and found["false_matches"] == matches.tolist()
    np.testing.assert_allclose(found["fmr"], matches / totals)
    assert found["of"] == "all images" and 0 < matches.sum() < totals.sum()


def test_false_matches_count_the_pairs_of_the_set_if_people_are_unknown(made):
    pairs, people, embeddings = made
    groups = find_groups_of(pairs)._replace(people=None)
    distances, sides = pair_distances(embeddings), people.reshape(-1, 2) % 3
    found = cross_group_rates(1.0, distances, pairs, groups=groups, embeddings=embeddings)
    for a in range(3):
        for b in range(3):
            chosen = ~pairs.issame & (np.sort(sides, axis=1) == sorted((a, b))).all(axis=1)
            assert found["pairs"][a][b] == chosen.sum()
            assert found["false_matches"][a][b] == (distances[chosen] < 1.0).sum()


def test_people_in_two_groups_are_named(made):
    pairs, people, _ = made
    labels = [NAMES[person % 3] for person in people]
    labels[7] = "Asian" if labels[7] != "Asian" else "Indian"
    write_groups(pairs.path, labels)
    expected = sorted({labels[7], NAMES[people[7] % 3]})
    assert find_groups_of(pairs).mixed == [(str(people[7]), expected)]
    (groups_path(pairs.path).with_name("rfw.people.txt")).unlink()
    labels[1] = "Asian" if labels[0] != "Asian" else "Indian"
    write_groups(pairs.path, labels)
    assert find_groups_of(pairs).mixed[0] == ("the person of image 0 of pair 0", sorted(labels[:2]))


@pytest.mark.parametrize(
    "text, problem",
    [
        ("a\nb\n", r"two lines per pair, 120 lines for 60 pairs, got 2 lines"),
        ("a\n" * 120, "must name from 2 to 64 groups, got 1"),
        ("".join(f"{i}\n" for i in range(120)), "must name from 2 to 64 groups, got 120"),
        ("a\n\n" + "b\n" * 118, "line 2: must name the group of image 1 of pair 0"),
        (b"\xff" * 300, "must be UTF-8 text"),
    ],
)
def test_damaged_files_are_refused(made, text, problem):
    path = groups_path(made[0].path)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(PairsError, match=problem) as error:
        find_groups_of(made[0])
    assert str(error.value).startswith(str(path))


def test_a_set_without_the_file_has_no_groups(made):
    groups_path(made[0].path).unlink()
    assert find_groups_of(made[0]) is None


def test_a_group_without_pairs_of_its_own_has_no_errors(made):
    pairs, people, embeddings = made
    labels = [NAMES[person % 3] for person in people]
    labels[3] = "Caucasian"
    write_groups(pairs.path, labels)
    found = group_errors(
        1.5,
        pair_distances(embeddings),
        pairs.issame,
        groups=find_groups_of(pairs),
        people=people.reshape(-1, 2),
    )
    assert list(found) == list(NAMES)
