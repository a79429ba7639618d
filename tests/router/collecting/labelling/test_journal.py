from __future__ import annotations

from pathlib import Path

import pytest

from probes.errors import DataError
from router.collecting.labelling.journal import Journal


def test_everything_that_was_said_is_there_again(tmp_path: Path) -> None:
    path = tmp_path / "labels.jsonl"
    with Journal(path) as journal:
        seed = journal.seed
        journal.record("a", 1.0)
        journal.record("b", None)
        journal.record("c", 0.0)
        assert journal.undo() == "c"
        journal.record("a", 0.5)
    with Journal(path) as journal:
        assert journal.seed == seed
        assert journal.said == {"a": 0.5, "b": None}
        assert journal.scores == {"a": 0.5}
        assert [journal.undo() for _ in range(4)] == ["a", "b", "a", None]
    with Journal(path) as journal:
        assert journal.said == {}


def test_a_line_is_on_disk_at_once(tmp_path: Path) -> None:
    path = tmp_path / "labels.jsonl"
    with Journal(path) as journal:
        journal.record("a", 1.0)
        assert path.read_text().endswith('{"question": "a", "score": 1.0}\n')


@pytest.mark.parametrize("cut", [1, 5, 20])
def test_a_last_line_that_a_crash_cut_off_is_dropped_and_the_rest_stays(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "labels.jsonl"
    with Journal(path) as journal:
        journal.record("a", 1.0)
        journal.record("b", 0.0)
    path.write_bytes(path.read_bytes()[:-cut])
    with Journal(path) as journal:
        assert journal.said == {"a": 1.0}
        journal.record("c", 0.5)
    with Journal(path) as journal:
        assert journal.said == {"a": 1.0, "c": 0.5}


def test_a_new_file_in_which_nothing_was_written_goes_away(tmp_path: Path) -> None:
    path = tmp_path / "labels.jsonl"
    Journal(path).close()
    assert not path.exists()
    with Journal(path) as journal:
        journal.begin()
    assert path.read_text().startswith('{"elle_labels": 1, "seed": "')


def test_two_people_cannot_write_into_one_file(tmp_path: Path) -> None:
    with Journal(tmp_path / "labels.jsonl"), pytest.raises(DataError, match="open in another `elle label`"):
        Journal(tmp_path / "labels.jsonl")


@pytest.mark.parametrize(
    "text",
    [
        "hello\n",
        "hello",
        '{"elle_labels": 2, "seed": "x"}\n',
        '{"elle_labels": 1}\n',
        '{"elle_labels": 1, "seed": "x"}\n[1]\n',
        '{"elle_labels": 1, "seed": "x"}\n{"question": "a", "score": 2}\n',
        '{"elle_labels": 1, "seed": "x"}\n{"question": "a", "score": true}\n',
        '{"elle_labels": 1, "seed": "x"}\n{"question": "a", "score": NaN}\n',
        '{"elle_labels": 1, "seed": "x"}\n{"undo": true}\n',
        "[" * 5_000 + "\n",
    ],
)
def test_another_programs_file_is_refused_and_stays_as_it_is(tmp_path: Path, text: str) -> None:
    path = tmp_path / "labels.jsonl"
    path.write_text(text)
    with pytest.raises(DataError, match="--labels"):
        Journal(path)
    assert path.read_text() == text


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be kept"):
        Journal(tmp_path / "nowhere" / "labels.jsonl")
