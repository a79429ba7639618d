"""YAML is read within bounds on bytes, depth, aliases and digits, and each fault is named with its file and line."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from router.errors import ConfigError
from router.yaml_file import MOST_BYTES, read_yaml


def laughs(key: str = "") -> str:
    """Return a YAML text of 9^9 words when its aliases are written out; with `key` the last alias is a key."""
    lines = ["a: &a [lol, lol, lol, lol, lol, lol, lol, lol, lol]"]
    for one in "bcdefghi":
        before = chr(ord(one) - 1)
        lines.append(f"{one}: &{one} [{', '.join([f'*{before}'] * 9)}]")
    return "\n".join([*lines, f"{key}"]) + "\n"


def written(tmp_path: Path, text: str | bytes) -> Path:
    path = tmp_path / "file.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_plain_values_anchors_and_merges_are_read(tmp_path: Path) -> None:
    text = "base: &b {x: 1, y: [2.5, true, null]}\nagain: *b\nmerged: {<<: *b, x: 3}\nwhen: 2026-01-02\n"
    found = read_yaml(written(tmp_path, text), "file")
    assert found["again"] == {"x": 1, "y": [2.5, True, None]}
    assert found["merged"] == {"x": 3, "y": [2.5, True, None]}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (laughs(), "must hold at most 50,000 values, aliases written out"),
        (laughs("? *i\n: 1"), "must hold at most 50,000 values"),
        ("a: &a [x, y]\n? *a\n: 1\n", "a key must be a scalar"),
        ("? [a, b]\n: 1\n", "a key must be a scalar"),
        ("a: &a {<<: *a}\n", "an alias must not be inside the value that it names"),
        ("a: &a [*a]\n", "an alias must not be inside the value that it names"),
        ("[" * 5000, "must be nested at most 32 levels deep"),
        ("- " * 5000 + "x", "must be nested at most 32 levels deep"),
        ("{a: " * 5000, "must be nested at most 32 levels deep"),
        ("? " * 5000, "must be nested at most 32 levels deep"),
        ("x: " + "1" * 5000, "a number must have at most 400 characters, got 5,000"),
        ("x: " + ":".join(["1"] * 50_000), "a number must have at most 400 characters, got 99,999"),
        ("x: 0x" + "f" * 5000, "a number must have at most 400 characters"),
        ("x: 1." + "1" * 5000, "a number must have at most 400 characters"),
        ("x: 2026-13-45\n", "cannot be read as the timestamp that it seems to be"),
        ("x: !!python/object/apply:os.system [id]\n", "plain values, got the tag tag:yaml.org,2002:python"),
        ("x: !!binary aGk=\n", "plain values, got the tag"),
        ("x: !!set {a, b}\n", "plain values, got the tag"),
        ('x: "half \\ud800"\n', "a lone surrogate"),
        ("a: 1\nb: 2\na: 3\n", "'a' occurs twice"),
        ("a: 1\n---\nb: 2\n", "but found another document"),
        ("a: [1\n", "line 2, column 1"),
        ("x: *" + "y" * 100_000, "found undefined alias"),
        (b"\xff\xfe\x00", "cannot be read"),
        ("# " + "x" * MOST_BYTES, "it must have at most 262,144 bytes"),
    ],
)  # fmt: skip
def test_a_file_that_costs_far_more_than_its_length_is_refused_with_its_name(
    tmp_path: Path, text: str | bytes, message: str
) -> None:
    begun = time.process_time()
    with pytest.raises(ConfigError) as caught:
        read_yaml(written(tmp_path, text), "policy file")
    assert message in str(caught.value)
    assert "file.yaml" in str(caught.value)
    assert len(str(caught.value)) < 1200
    assert time.process_time() - begun < 10


@pytest.mark.parametrize("place", ["none.yaml", "."])
def test_a_path_that_is_no_file_is_refused_with_its_name(tmp_path: Path, place: str) -> None:
    with pytest.raises(ConfigError, match="policy file"):
        read_yaml(tmp_path / place, "policy file")


def test_a_device_is_not_read() -> None:
    with pytest.raises(ConfigError, match="is a pipe, a socket or a device"):
        read_yaml(Path("/dev/zero"), "policy file")
