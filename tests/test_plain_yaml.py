# SPDX-License-Identifier: Apache-2.0
"""YAML text that would take gigabytes, minutes or another error is refused with one sentence."""

from __future__ import annotations

import pytest

from plain_yaml import MAX_CHARACTERS, MAX_DEPTH, PlainYamlError, parse_yaml, read_yaml_file

BOMB = "a0: &a0 [x]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 10)
)


def test_plain_values_are_parsed_and_dates_stay_text():
    text = "a: [1, 2.5, true, null, x]\nb: {c: 2024-01-01, d: 1.0e-3}\ne: &e [1]\nf: *e\n"
    assert parse_yaml(text) == {
        "a": [1, 2.5, True, None, "x"],
        "b": {"c": "2024-01-01", "d": 0.001},
        "e": [1],
        "f": [1],
    }
    assert parse_yaml("") is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            BOMB,
            "must have at most 20000 values, counting those that aliases repeat, got more at line",
        ),
        ("a: &a [*a]", "has no value for an alias, got *a"),
        ("[" * 20_000, f"must have at most {MAX_DEPTH} brackets"),
        ("{" * 20_000, f"must have at most {MAX_DEPTH} brackets"),
        ("- " * 20_000, f"must have at most {MAX_DEPTH} brackets"),
        ("9" * 5000, "line 1 has too long a number, got 999"),
        ("a:\n- 0x" + "f" * 5000, "line 2 has too long a number"),
        ("1:" * 5000 + "1", "has too long a number"),
        ("1." + "1" * 5000, "has too long a number"),
        ("0x_", "invalid YAML, got: invalid literal"),
        ("!!int many", "must have no tag, got 'tag:yaml.org,2002:int'"),
        ("!!python/object:os.system x", "must have no tag, got 'tag:yaml.org,2002:python"),
        ("a" * (MAX_CHARACTERS + 1), f"must have at most {MAX_CHARACTERS} characters"),
        ("? [a]\n: b", "found unhashable key"),
        ("a: b: c", "mapping values are not allowed here"),
        ("a: <<", "could not determine a constructor"),
        ("\0", "unacceptable character"),
    ],
    ids=range(17),
)
def test_costly_or_foreign_text_is_refused(text, message):
    with pytest.raises(PlainYamlError) as caught:
        parse_yaml(text)
    assert message in str(caught.value)
    assert len(str(caught.value)) < 500 and "\n" not in str(caught.value)


def test_a_file_is_read_up_to_the_limit(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_bytes(b"\xef\xbb\xbfa: 1\n")
    assert read_yaml_file(path) == {"a": 1}
    path.write_bytes(b"a: \xff\n")
    with pytest.raises(PlainYamlError, match="invalid YAML, got: 'utf-8' codec can't decode"):
        read_yaml_file(path)
    with path.open("wb") as file:
        file.truncate(1 << 33)  # 8 GiB of zeros, which take no space
    with pytest.raises(PlainYamlError, match=f"must have at most {MAX_CHARACTERS} characters"):
        read_yaml_file(path)
