"""`elle canary` begins, feeds, shows and ends a canary in a file, which a service follows."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from router.cli.main import cli
from router.decision import ArtifactRef
from router.ledger.opening import open_ledger, opened_reader
from router.observing.observer import AnsweredEvent, AnswerOutcome, DecidedEvent
from router.values import RouteQuery
from tests.router.drift.decisions import decision
from tests.router.ledger.rows import sqlite_ledger

pytest.importorskip("sqlalchemy")


def run(*arguments: object) -> Result:
    return CliRunner().invoke(cli, ["canary", *[str(argument) for argument in arguments]])


class Trial:
    """A canary with a ledger of its decisions and a file of labels."""

    def __init__(self, folder: Path) -> None:
        self.state, self.labels = folder / "canary.json", folder / "labels.jsonl"
        self.settings = sqlite_ledger(folder)
        self.began = self.start("--labels-per-step", 50)

    def start(self, *more: object) -> Result:
        return run(
            *("start", "new", "--base", "old", "--max-loss", 0.02, "--state", self.state, "--author", "me", *more)
        )

    def serve(self, n: int, *, drop: float, failed: bool = False) -> None:
        """Write n decisions of the new policy with their answers, and labels with this mean loss."""
        rng, ledger, rows = np.random.default_rng(n), open_ledger(self.settings), []
        for number in range(n):
            found = decision(
                decision_id=f"{int(time.time() * 1000):012x}7{number:019x}", policy=ArtifactRef("new", "1", "d")
            )
            ledger.decided(DecidedEvent(RouteQuery(()), found, "", None))
            outcome = AnswerOutcome.FAILED if failed else AnswerOutcome.ANSWERED
            ledger.answered(AnsweredEvent(found, outcome, "small", (), total_s=1.0))
            lost = float(rng.random() < drop + 0.05), float(rng.random() < 0.05)
            for model, loss in zip(("small", "large"), lost, strict=True):
                row = {"prompt": f"prompt {number}", "prompt_id": found.decision_id, "model": model, "score": 1 - loss}
                rows.append(json.dumps(row))
        ledger.close()
        self.labels.write_text("\n".join(rows))

    def step(self, *more: object) -> Result:
        ledger = ("--ledger", self.settings.place, "--reference", "large")
        return run("step", "--state", self.state, *ledger, "--json", *more)

    def status(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(run("status", "--state", self.state, "--json").stdout)
        return found


@pytest.fixture
def trial(tmp_path: Path) -> Trial:
    return Trial(tmp_path)


def test_it_begins_at_the_share_that_is_asked_for_and_says_who_began_it(trial: Trial) -> None:
    assert trial.began.exit_code == 0, trial.began.output
    assert "new decides 5 % of the requests of old" in trial.began.stdout
    found = trial.status()
    assert (found["status"], found["share"]) == ("running", 0.05)
    assert [event["author"] for event in found["trail"]] == ["me"]


def test_labels_that_lose_too_much_roll_it_back_and_the_ledger_says_so(trial: Trial) -> None:
    trial.serve(200, drop=0.5)
    done = trial.step("--labels", trial.labels, "--author", "cron")
    assert done.exit_code == 3, done.output
    found = trial.status()
    assert (found["status"], found["share"]) == ("rolled_back", 0.0)
    assert "the mean loss exceeds 0.02" in found["trail"][-1]["why"]
    assert found["trail"][-1]["author"] == "cron"
    with opened_reader(trial.settings) as reader:
        (event,) = reader.events("canary")
    assert event.detail["status"] == "rolled_back"
    assert trial.step("--labels", trial.labels).exit_code == 3


def test_labels_count_once_however_often_they_are_given(trial: Trial) -> None:
    trial.serve(40, drop=0.0)
    for _ in range(2):
        assert trial.step("--labels", trial.labels).exit_code == 0
    found = trial.status()
    assert (found["labels"], found["requests"]) == (40, 40)


def test_a_reference_that_is_no_candidate_is_refused_and_nothing_is_written(trial: Trial) -> None:
    trial.serve(3, drop=0.0)
    before = trial.state.read_bytes()
    done = run("step", "--state", trial.state, "--ledger", trial.settings.place, "--reference", "larg")
    assert done.exit_code == 1
    assert "--reference must be one of the candidates large, small, got 'larg'" in done.output
    assert trial.state.read_bytes() == before


def test_good_labels_widen_it(trial: Trial) -> None:
    trial.serve(300, drop=-0.05)
    done = trial.step("--labels", trial.labels)
    assert done.exit_code == 0, done.output
    assert trial.status()["share"] > 0.05


def test_answers_that_fail_roll_it_back_without_labels(trial: Trial) -> None:
    trial.serve(100, drop=0.0, failed=True)
    assert trial.step().exit_code == 3
    assert "ended without an answer" in trial.status()["trail"][-1]["why"]


def test_without_new_labels_it_pauses(trial: Trial) -> None:
    trial.serve(1, drop=0.0)
    assert trial.step().exit_code == 0
    found = trial.status()
    assert (found["status"], found["trail"][-1]["why"]) == ("paused", "no new labels")


def test_people_see_a_table_and_can_stop_it(trial: Trial) -> None:
    assert "5 %" in run("status", "--state", trial.state).stdout
    said = run("stop", "--state", trial.state, "--reason", "not today").stdout
    assert "is stopped, and old decides everything again" in said
    assert trial.status()["trail"][-1]["why"] == "not today"


def test_one_that_is_not_over_is_not_replaced_without_force(trial: Trial) -> None:
    assert "not over" in trial.start().output
    assert trial.start("--force").exit_code == 0


@pytest.mark.parametrize(
    ("contents", "message"),
    [
        (b"{", "c.json cannot be read: a key in double quotes is missing at column 2."),
        (
            b'{"schema": 1, "schema": 1}',
            "c.json cannot be read: key 'schema' occurs twice in one object, at column 15.",
        ),
        (b"\xff", "c.json cannot be read: it must be text in UTF-8"),
        (b"[" * 100_000, "c.json cannot be read: it is nested too deeply."),
        (b'{"schema": "elle.canary/1"}', "c.json cannot be read: it lacks 'canary'."),
        (
            b'{"schema": "elle.canary/1", "canary": null}',
            "c.json cannot be read: this is no state of a canary: it holds a value of a wrong kind.",
        ),
    ],
)
def test_a_damaged_canary_is_told_in_words_and_not_in_those_of_python(
    contents: bytes, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("c.json").write_bytes(contents)
    done = run("status", "--state", "c.json")
    assert done.exit_code == 1
    assert message in done.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("status", "--state", "none.json"), "the canary none.json does not exist; begin one"),
        (("start", "old", "--base", "old", "--max-loss", "0.1"), "a canary tries another one"),
        (("start", "", "--base", "old", "--max-loss", "0.1"), "needs the names of two policies"),
        (("start", "new", "--base", "old", "--max-loss", "0.99"), "-1<x<0.98"),
        (("start", "new", "--base", "old", "--max-loss", "0.1", "--share", "0.001"), "0.01<=x<=100"),
        (("start", "new", "--base", "old", "--max-loss", "2"), "max-loss"),
        (("start", "new", "--base", "old", "--max-loss", "0.1", "--share", "0"), "share"),
    ],
)
def test_what_makes_no_canary_is_refused(
    arguments: tuple[str, ...], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = run(*arguments)
    assert done.exit_code in (1, 2)
    assert message in done.output


@pytest.mark.parametrize(
    ("contents", "what_to_do"),
    [
        (b"", "without it the policy that serves decides everything"),
        (b'{"schema": "elle.canary/1"}', "without it the policy that serves decides everything"),
        (b"[]", "Give the file that `elle canary start` wrote"),
        (b'{"schema": 3}', "Give the file that `elle canary start` wrote"),
    ],
)
def test_a_file_that_is_no_canary_is_refused_with_its_name(tmp_path: Path, contents: bytes, what_to_do: str) -> None:
    state = tmp_path / "canary.json"
    state.write_bytes(contents)
    done = run("status", "--state", state)
    assert done.exit_code == 1
    assert "canary.json" in done.output
    assert what_to_do in done.output


@pytest.mark.parametrize(
    "spoil",
    [
        lambda plain: plain.update(trail=[1]),
        lambda plain: plain["trail"][0].update(at="noon"),
        lambda plain: plain["trail"][0].update(at=1e300),
        lambda plain: plain["trail"][0].pop("why"),
        lambda plain: plain.update(read_until=float("nan")),
        lambda plain: plain["canary"].update(status="asleep"),
        lambda plain: plain["canary"]["plan"].update(policy=5),
    ],
)
def test_a_damaged_canary_is_told_in_one_line_with_what_to_do(trial: Trial, spoil: Callable[[Any], Any]) -> None:
    plain = json.loads(trial.state.read_bytes())
    spoil(plain)
    trial.state.write_text(json.dumps(plain))
    done = run("status", "--state", trial.state)
    assert done.exit_code == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"Error: the canary {trial.state}")
    assert "Restore it from a backup, or remove it" in line


def test_a_canary_of_a_newer_program_says_so(trial: Trial) -> None:
    trial.state.write_text(trial.state.read_text().replace("elle.canary/1", "elle.canary/2"))
    assert (
        "is a canary of a newer program, 'elle.canary/2'; update elle-router"
        in run("status", "--state", trial.state).stderr
    )


def test_force_replaces_a_spoiled_canary_and_no_other_file(trial: Trial, tmp_path: Path) -> None:
    trial.state.write_bytes(trial.state.read_bytes()[:300])
    assert trial.start("--force").exit_code == 0
    policy = tmp_path / "policy.yaml"
    policy.write_text("schema: elle.policy/1\n")
    done = run("start", "new", "--base", "old", "--max-loss", "0.02", "--state", policy, "--force")
    assert done.exit_code == 1
    assert "is no file of a canary, and --force replaces no other; give another --state" in done.stderr
    assert policy.read_text() == "schema: elle.policy/1\n"


def test_labels_that_say_nothing_are_told(trial: Trial) -> None:
    trial.serve(3, drop=0.0)
    rows = [json.loads(line) for line in trial.labels.read_text().splitlines()]
    rows[0]["prompt_id"] = rows[1]["prompt_id"] = "elsewhere"
    trial.labels.write_text("\n".join(json.dumps(row) for row in rows if row is not rows[-1]))
    asked = ("step", "--state", trial.state, "--ledger", trial.settings.place, "--reference", "large")
    said = run(*asked, "--labels", trial.labels).stdout
    assert "Labels of 1 prompt_ids are left out, such as 'elsewhere': they are no decisions of new" in said
    assert "1 decisions are graded, but not for both the candidate that was chosen and large" in said
    assert len(json.loads(trial.step("--labels", trial.labels).stdout)["left_out"]) == 2
    assert trial.status()["labels"] == 1


def test_a_canary_that_begins_in_the_future_says_why_it_learns_nothing(trial: Trial) -> None:
    trial.serve(2, drop=0.0)
    plain = json.loads(trial.state.read_bytes())
    plain["trail"][0]["at"] += 86400
    trial.state.write_text(json.dumps(plain))
    (said,) = json.loads(trial.step().stdout)["left_out"]
    assert "which the clock of this machine has not reached" in said


def test_without_labels_nothing_is_said_of_the_loss(trial: Trial) -> None:
    assert "There is no label yet, so nothing is known of the mean loss" in run("status", "--state", trial.state).stdout


def test_what_a_user_wrote_is_shown_as_it_is_and_never_as_markup(trial: Trial) -> None:
    trial.start("--force", "--reason", "[bold]why[/not]")
    assert "[bold]why[/not]" in run("status", "--state", trial.state).stdout
