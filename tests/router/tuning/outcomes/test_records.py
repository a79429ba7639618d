"""Tests of the readers of rows: a line ends at a line feed only, and what the product writes is read back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from probes.errors import DataError
from router.tuning.outcomes.adapters.collection import ImportedAnswer, RawScore
from router.tuning.outcomes.adapters.files import write_outcomes
from router.tuning.outcomes.datasets import read_outcomes
from router.tuning.outcomes.records import Place, number_of, read_rows

#: Everything that `str.splitlines` takes for the end of a line, and what other tools add.
BREAKS = "a\u2028b\u2029c\x85d\x0ce\x0bf\x1cg\x1dh\x1ei\rj\nk\ufeffl\x00m"

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
WORDS = TEXT.map(lambda text: f"x{text}y")


def values(path: Path) -> list[Any]:
    return [dict(row.values) for row in read_rows(path)]


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("name", ["x.jsonl", "x.ndjson", "x.json"])
def test_lines_end_at_a_line_feed_only_in_every_encoding(tmp_path: Path, name: str, encoding: str, end: str) -> None:
    rows = [{"prompt": BREAKS, "n": 1}, {"prompt": "second", "n": 2}]
    text = end.join(json.dumps(row, ensure_ascii=False) for row in rows) + end
    (tmp_path / name).write_bytes(text.encode(encoding))
    assert values(tmp_path / name) == rows
    (tmp_path / "list.json").write_bytes(json.dumps(rows, ensure_ascii=False).encode(encoding))
    assert values(tmp_path / "list.json") == rows
    (tmp_path / "api.json").write_bytes(json.dumps({"data": rows, "meta": {}}).encode(encoding))
    assert values(tmp_path / "api.json") == rows


def test_joined_files_with_marks_in_between_and_blank_lines(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_bytes(b'\xef\xbb\xbf{"a": 1}\n\n\xef\xbb\xbf{"a": 2}')
    assert [(row.place.number, row.values["a"]) for row in read_rows(tmp_path / "x.jsonl")] == [(1, 1), (3, 2)]


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("announced", [False, True])
def test_tables_of_every_delimiter_read_alike(tmp_path: Path, delimiter: str, encoding: str, announced: bool) -> None:
    lines = [["prompt", " score ", ""], ['"a, b; c\td\u2028\r\ne ""f"""', "1", "x"], ["", "", ""], ["g", "", ""]]
    text = "\r\n".join(delimiter.join(line) for line in lines)
    (tmp_path / "x.csv").write_bytes((f"sep={delimiter}\r\n" * announced + text).encode(encoding))
    rows = read_rows(tmp_path / "x.csv")
    assert [dict(row.values) for row in rows] == [
        {"prompt": 'a, b; c\td\u2028\r\ne "f"', "score": "1"},
        {"prompt": "g"},
    ]
    assert [row.place.number for row in rows] == [2 + announced, 5 + announced]


def test_bad_rows_are_handed_on_and_the_others_read(tmp_path: Path) -> None:
    bad: list[tuple[int, str]] = []

    def note(place: Place, problem: str) -> None:
        bad.append((place.number, problem.split(":")[0]))

    (tmp_path / "x.jsonl").write_bytes(b'{"a": 1}\n{"a":\n[1]\n{"a": "\xff"}\n' + b"[" * 10**5 + b'\n{"a": 2}\n')
    assert [row.values["a"] for row in read_rows(tmp_path / "x.jsonl", note)] == [1, 2]
    assert bad == [
        (2, "must be JSON"),
        (3, "must be a JSON object, got a list"),
        (4, "must be JSON"),
        (5, "must be JSON"),
    ]
    bad.clear()
    (tmp_path / "x.csv").write_text("a,b\n1,2\n3,4,5\n6\n")
    assert [dict(row.values) for row in read_rows(tmp_path / "x.csv", note)] == [{"a": "1", "b": "2"}, {"a": "6"}]
    assert bad == [(3, "has 3 cells, more than the header's 2")]


@pytest.mark.parametrize(
    ("name", "contents", "message"),
    [
        ("x.csv", "a,a\n1,2\n", "name each column once; a stands more than once"),
        ("x.csv", 'a\n"b\n', "x.csv, line 2 cannot be read as CSV"),
        ("x.json", "{", "x.json must be JSON"),
        (
            "x.json",
            '[{"a": 1},\n {"a": 1, "a": 2}]',
            "must be JSON: key 'a' occurs twice in one object, at line 2, column 11",
        ),
        (
            "x.json",
            '{"a": 1}\n{"a": 1, "a": 2}\n',
            "line 2 must be JSON: key 'a' occurs twice in one object, at column 10",
        ),
        ("x.jsonl", '{"a": 1}\n{"b": {"a": 1, "a": 2}}\n', "line 2 must be JSON: key 'a' occurs twice in one object"),
        ("x.json", "7\n{}", "line 1 must be a JSON object, got a number"),
        ("x.json", "[" * 10**5, "nested too deeply"),
        ("x.jsonl.gz", "", "Unpack it first"),
        ("x.pkl", "", "A pickle runs code when opened"),
        ("x", "", "got no suffix"),
    ],
)
def test_files_that_cannot_be_read_are_named(tmp_path: Path, name: str, contents: str, message: str) -> None:
    (tmp_path / name).write_text(contents)
    with pytest.raises(DataError) as caught:
        read_rows(tmp_path / name)
    assert message in str(caught.value)
    assert str(tmp_path / name) in str(caught.value)


@pytest.mark.parametrize(
    ("written", "number"),
    [("0.5", 0.5), (" 1 ", 1.0), ("1e-3", 0.001), (".5", 0.5), ("0,5", 0.5), ("12,75", 12.75), ("0,125", 0.125),
     (7, 7.0), ("1,000", None), ("1_000", None), ("nan", None), ("", None), ("x", None), (True, None), (None, None),
     ([1], None),
     (10**400, float("inf"))],
)  # fmt: skip
def test_numbers_are_numbers_and_a_thousand_is_not_guessed(written: Any, number: float | None) -> None:
    assert number_of(written) == number


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(WORDS, WORDS, TEXT, st.booleans()), min_size=1, max_size=4))
def test_what_is_written_is_read_back_whatever_the_text(
    tmp_path: Path, suffix: str, rows: list[tuple[str, str, str, bool]]
) -> None:
    answers = [
        (
            ImportedAnswer(
                Place(tmp_path, "line", number),
                model,
                (RawScore(1, ""),),
                prompt=None if is_chat else prompt,
                messages=[{"role": "user", "content": prompt}] if is_chat else None,
                group=group,
            ),
            0.5,
        )
        for number, (prompt, model, group, is_chat) in enumerate(rows)
    ]
    written = write_outcomes(answers, tmp_path / f"out{suffix}")
    again = read_outcomes(tmp_path / f"out{suffix}")
    assert written.texts == again.texts
    assert set(again.models) == {model for _, model, _, _ in rows}
    prompts = {prompt.strip() for prompt, *_ in rows}
    assert {text.strip() for text in again.texts} <= prompts
    assert set(again.groups) <= {group for _, _, group, _ in rows}


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.dictionaries(TEXT.filter(bool), TEXT | st.integers() | st.booleans() | st.none(), min_size=1)))
def test_json_lines_of_any_text_read_back(tmp_path: Path, rows: list[dict[str, Any]]) -> None:
    path = tmp_path / "x.jsonl"
    path.write_bytes("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode())
    assert values(path) == rows
