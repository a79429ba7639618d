"""`elle label` on a real terminal (a pty), and with sheets."""

from __future__ import annotations

import csv
import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Self

import pytest
from click.testing import CliRunner, Result

from router.cli.main import cli
from tests.conftest import ROOT
from tests.router.collecting.labelling.graded import read, rows, write

ELLE = [sys.executable, "-c", "from router.cli.main import main; main()"]


class Terminal:
    """`elle label` on a pty: presses keys, and reads what is shown."""

    def __init__(self, *arguments: str) -> None:
        self._near, far = pty.openpty()
        self.process = subprocess.Popen(
            [*ELLE, "label", *arguments],
            stdin=far,
            stdout=subprocess.PIPE,
            stderr=far,
            cwd=ROOT,
            text=True,
        )
        os.close(far)
        self.shown = ""

    def wait_for(self, text: str) -> str:
        """Return what is shown from now on until a text, and fail after a minute."""
        end = time.monotonic() + 60
        while text not in self.shown:
            assert time.monotonic() < end, self.shown
            if select.select([self._near], [], [], 1)[0]:
                self.shown += os.read(self._near, 65536).decode()
        before, _, self.shown = self.shown.partition(text)
        return before + text

    def press(self, key: str) -> None:
        os.write(self._near, key.encode())

    def ask(self) -> str:
        return self.wait_for("[q] quit")

    def end(self) -> str:
        """Return what the command printed on stdout in the end."""
        out, _ = self.process.communicate(timeout=60)
        return out

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()
        os.close(self._near)


@pytest.fixture
def outcomes(tmp_path: Path) -> Path:
    return write(tmp_path / "outcomes.jsonl", rows(3, models=("cheap", "strong")))


def label(*arguments: object) -> Result:
    return CliRunner().invoke(cli, ["label", *map(str, arguments)])


def test_a_person_grades_with_single_keys_blind_and_goes_on_later(outcomes: Path, tmp_path: Path) -> None:
    with Terminal(str(outcomes), "--json") as terminal:
        first = terminal.ask()
        assert "Question 1 of 3" in first
        assert not re.search("cheap|strong", first)
        terminal.press("x")
        terminal.press("a")
        second = terminal.ask()
        assert "A is better\r" in second
        assert "Question 2 of 3" in second
        terminal.press("t")
        terminal.ask()
        terminal.press("u")
        again = terminal.ask()
        assert "taken back" in again
        assert again.partition("Question")[2] == second.partition("Question")[2]
        terminal.press("s")
        terminal.ask()
        terminal.press("q")
        found = json.loads(terminal.end())
    assert (found["n_questions"], found["n_open"], found["n_skipped"], found["n_prompts"]) == (3, 1, 1, 1)

    with Terminal(str(outcomes), "--out", str(tmp_path / "labelled.jsonl")) as later:
        assert "Question 3 of 3" in later.ask()
        later.press("B")
        later.wait_for("All 3 questions have an answer.")
        assert "1 prompt was passed over" in later.end()
    labelled = read(tmp_path / "labelled.jsonl")
    assert len(labelled) == 6
    assert sum("human_score" in row for row in labelled) == 4
    assert [row["human_score"] for row in labelled if row["model"] == "strong" and "human_score" in row] == [0.5, 0.5]


def test_a_key_that_was_pressed_survives_a_kill(outcomes: Path) -> None:
    with Terminal(str(outcomes)) as terminal:
        terminal.ask()
        terminal.press("a")
        terminal.wait_for("A is better\r")
        terminal.process.send_signal(signal.SIGKILL)
        terminal.end()
    assert "1 of 3 questions are answered" in label(outcomes, "--report").output


@pytest.mark.parametrize("key", ["\x03", "\x04"], ids=["interrupt", "end of input"])
def test_control_keys_quit(outcomes: Path, key: str) -> None:
    with Terminal(str(outcomes)) as terminal:
        terminal.ask()
        terminal.press(key)
        assert "0 of 3 questions are answered" in terminal.end()
        assert terminal.process.returncode == 0


def test_without_a_terminal_nothing_is_asked(outcomes: Path) -> None:
    done = label(outcomes)
    assert done.exit_code == 1
    assert "--export" in done.output
    assert not outcomes.with_name("outcomes.jsonl.labels.jsonl").exists()


def test_a_sheet_goes_out_and_its_verdicts_come_back(outcomes: Path, tmp_path: Path) -> None:
    sheet, out = tmp_path / "sheet.csv", tmp_path / "labelled.jsonl"
    done = label(outcomes, "--export", sheet, "--n", 2)
    assert f"Wrote the open questions to {sheet}." in done.stdout
    with sheet.open(newline="", encoding="utf-8-sig") as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == 2
    # Whoever fills it in prefers the strong model, whose texts it knows, on whichever side they are.
    for line in lines:
        line["verdict"] = "a" if "gnorts" in line["answer_a"] else "b"
    with sheet.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, lines[0])
        writer.writeheader()
        writer.writerows(lines)
    done = label(outcomes, "--import", sheet, "--out", out, "--json")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["agreement"]["all"]["all"]["human_mean"] == 0
    # A later report on fewer prompts counts every question that has an answer.
    assert label(outcomes, "--report", "--n", 1).stdout.startswith("2 of 2 questions are answered")
    assert [row["human_score"] for row in read(out) if row["model"] == "cheap" and "human_score" in row] == [0, 0]
    assert all(row["human_drawn"] == "random" for row in read(out) if "human_score" in row)


def test_nothing_is_replaced_without_force(outcomes: Path, tmp_path: Path) -> None:
    (tmp_path / "sheet.csv").write_text("mine")
    assert "--force" in label(outcomes, "--export", tmp_path / "sheet.csv").output
    assert label(outcomes, "--report", "--out", outcomes).exit_code == 1
    assert label(outcomes, "--report", "--out", outcomes, "--force").exit_code == 1
    assert (tmp_path / "sheet.csv").read_text() == "mine"
    assert len(read(outcomes)) == 6


def test_the_report_speaks_of_each_model_and_group(outcomes: Path, tmp_path: Path) -> None:
    label(outcomes, "--export", tmp_path / "sheet.csv")
    text = (tmp_path / "sheet.csv").read_text("utf-8-sig")
    filled = "\n".join(line[:-1] + ",t" if line.endswith(",") else line for line in text.splitlines())
    (tmp_path / "filled.csv").write_text(filled.replace(",,t", ",t"))
    output = label(outcomes, "--import", tmp_path / "filled.csv").output
    assert "3 of 3 questions are answered, 0 skipped; people graded 3 prompts for every model." in output
    assert "The grader agrees with people on 2 of 3 answers (0.667, 0.094 to 0.992; kappa 0.00)." in output
    assert "  model cheap: 2 of 3 answers" in output
    assert "  group odd: 0 of 1 answers" in output


@pytest.mark.parametrize("name", ["missing.jsonl", "other.txt"])
def test_a_file_that_is_not_outcomes_is_named_and_leaves_no_labels_behind(tmp_path: Path, name: str) -> None:
    (tmp_path / "other.txt").write_text("x")
    done = label(tmp_path / name, "--report")
    assert done.exit_code == 1
    assert name in done.output
    assert not list(tmp_path.glob("*.labels.jsonl"))
