from __future__ import annotations

import csv
from pathlib import Path

import pytest

from probes.errors import DataError
from router.collecting.labelling.asking_people import visible
from router.collecting.labelling.questions import HumanQuestion
from router.collecting.labelling.sheet import read_sheet, write_sheet

QUESTIONS = (
    HumanQuestion("id1", "p1", "cheap", "pair", "=SUM(A1)", ("@one", "two\x1b[2J"), False),
    HumanQuestion("id2", "p2", "cheap", "pair", "request", ("one", "two"), True),
    HumanQuestion("id3", "p3", "cheap", "single", "request", ("x" * 100_000,), False),
)


def lines_of(path: Path) -> list[list[str]]:
    with path.open(newline="", encoding="utf-8-sig") as file:
        return list(csv.reader(file))


def fill(path: Path, *verdicts: tuple[str, str], delimiter: str = ",") -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, delimiter=delimiter).writerows([("question", "verdict"), *verdicts])
    return path


def test_a_sheet_is_blind_and_runs_nothing_in_a_spreadsheet(tmp_path: Path) -> None:
    write_sheet(tmp_path / "sheet.csv", QUESTIONS)
    head, first, *_, last = lines_of(tmp_path / "sheet.csv")
    assert head == ["question", "request", "answer_a", "answer_b", "ask", "verdict"]
    assert first[:4] == ["id1", "'=SUM(A1)", "'@one", "two\\x1b[2J"]
    assert "a = A is better" in first[4]
    assert first[5] == ""
    assert len(last[2]) < 32_767
    assert "cheap" not in (tmp_path / "sheet.csv").read_text("utf-8")


@pytest.mark.parametrize("delimiter", [",", ";"])
def test_verdicts_are_read_as_keys_or_words_and_empty_ones_are_left_open(tmp_path: Path, delimiter: str) -> None:
    path = fill(tmp_path / "s.csv", ("id1", "A "), ("id2", "A"), ("id3", ""), delimiter=delimiter)
    assert read_sheet(path, QUESTIONS) == {"id1": 1.0, "id2": 0.0}
    path = fill(tmp_path / "s.csv", ("id1", "tie"), ("id2", "skip"), ("id3", "half"), delimiter=delimiter)
    assert read_sheet(path, QUESTIONS) == {"id1": 0.5, "id2": None, "id3": 0.5}


def test_faults_are_listed_by_line_and_nothing_counts(tmp_path: Path) -> None:
    path = fill(tmp_path / "s.csv", ("id1", "a"), ("id9", "a"), ("id2", "better"), ("id1", "b"), ("id3", "a"))
    with pytest.raises(DataError) as caught:
        read_sheet(path, QUESTIONS)
    said = str(caught.value)
    assert said.startswith("no verdict was taken over.")
    assert "line 3: 'id9' is no question" in said
    assert "line 4: verdict must be one of a, b, t, s, got 'better'" in said
    assert "line 5: 'id1' has a verdict already" in said
    assert "line 6: verdict must be one of y, n, h, s, got 'a'" in said


def test_a_file_that_is_no_sheet_is_refused_with_what_it_holds(tmp_path: Path) -> None:
    path = tmp_path / "s.csv"
    path.write_text("question;urteil\nid1;a\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"must have the columns question and verdict, .* it holds question, urteil\."):
        read_sheet(path, QUESTIONS)


def test_many_faults_make_a_short_message(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="and 990 more"):
        read_sheet(fill(tmp_path / "s.csv", *[("x", "a")] * 1000), QUESTIONS)


def test_what_is_printed_does_nothing_to_a_terminal() -> None:
    assert visible("a\tb\nÄ 中 \x1b]0;title\x07 \u202e \r \x9b") == ("a\tb\nÄ 中 \\x1b]0;title\\x07 \\u202e \\r \\x9b")
