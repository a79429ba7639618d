"""Every answer is evidence once, whenever it ends and whenever its row comes into the ledger."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from router.cli.main import cli
from router.decision import ArtifactRef, RoutingDecision
from router.ledger.opening import open_ledger
from router.ledger.reader import Arrival
from router.observing.observer import AnsweredEvent, AnswerOutcome, DecidedEvent
from router.rollout import ledger_evidence
from router.rollout.canary import Canary, CanaryPlan
from router.rollout.canary_file import CanaryFile, read_canary
from router.rollout.ledger_evidence import take_answers
from router.times import new_id
from router.values import RouteQuery
from tests.router.drift.decisions import decision
from tests.router.ledger.rows import sqlite_ledger

pytest.importorskip("sqlalchemy")


class Trial:
    """A canary of the policy `new`, and a ledger on a disk that can be taken away."""

    def __init__(self, folder: Path) -> None:
        self.state, self.disk = folder / "canary.json", folder / "disk"
        self.disk.mkdir()
        (folder / "key").write_text("0123456789abcdef" * 4)
        known = {"key_file": folder / "key", "spool_dir": folder / "spool"}
        self.settings = replace(sqlite_ledger(self.disk), **known)
        self.elle("start", "new", "--base", "old", "--max-loss", 0.02)

    def elle(self, *arguments: object) -> str:
        done = CliRunner().invoke(cli, ["canary", *map(str, arguments), "--state", str(self.state)])
        assert done.exit_code == 0, done.output
        return done.stdout

    def requests(self) -> int:
        """Feed the canary, and return how many answers are in its evidence."""
        said = self.elle("step", "--ledger", self.settings.place, "--reference", "large", "--json")
        return int(json.loads(said)["requests"])

    def record(self, *, decided: bool = True, answered: bool = True, made: RoutingDecision | None = None) -> Any:
        made = made or decision(decision_id=new_id(), policy=ArtifactRef("new", "1", "d"))
        ledger = open_ledger(self.settings)
        if decided:
            ledger.decided(DecidedEvent(RouteQuery(()), made, "", None))
        if answered:
            ledger.answered(AnsweredEvent(made, AnswerOutcome.ANSWERED, "small", (), total_s=1.0))
        ledger.close()
        return made


@pytest.fixture
def trial(tmp_path: Path) -> Trial:
    return Trial(tmp_path)


def test_what_was_spooled_while_the_database_was_away_is_evidence_once_it_is_there(
    trial: Trial, monkeypatch: pytest.MonkeyPatch
) -> None:
    # However late a row may be seen, one that was spooled comes later.
    monkeypatch.setattr(ledger_evidence, "LATE_S", 0.0)
    monkeypatch.setattr(ledger_evidence, "MOST_REMEMBERED", 0)
    trial.record()
    away = trial.disk.rename(trial.disk.with_name("away"))
    trial.record()
    assert any(trial.settings.spool_folder.iterdir())
    away.rename(trial.disk)
    # Another process, which has a spool of its own, goes on meanwhile.
    own, other = trial.settings, replace(trial.settings, spool_dir=trial.state.with_name("other"))
    trial.settings = other
    trial.record()
    assert trial.requests() == 2
    trial.settings = own
    trial.record()
    assert [trial.requests(), trial.requests()] == [4, 4]


def test_an_answer_that_ends_long_after_those_of_its_neighbours_is_evidence_too(trial: Trial) -> None:
    slow = trial.record(answered=False)
    trial.record()
    assert trial.requests() == 1
    trial.record()
    assert trial.requests() == 2
    trial.record(decided=False, made=slow)
    assert [trial.requests(), trial.requests()] == [3, 3]


def test_a_ledger_of_before_times_of_arrival_were_kept_is_read_by_the_times_of_its_answers(trial: Trial) -> None:
    import sqlalchemy as sa

    trial.record()
    engine = sa.create_engine(f"sqlite:///{trial.settings.place}")
    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE outcomes SET arrived = NULL")
    engine.dispose()
    assert [trial.requests(), trial.requests()] == [1, 1]


def arrival(number: int, arrived: float) -> Arrival:
    return Arrival(str(number), "new", "answered", 1.0, arrived)


@pytest.mark.parametrize("most", [100, 3])
def test_little_is_remembered_and_nothing_is_counted_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    monkeypatch.setattr(ledger_evidence, "MOST_REMEMBERED", most)
    file = CanaryFile(tmp_path / "canary.json", Canary(CanaryPlan("c", "new", "old", 0.02)))
    every = [arrival(number, 1000.0 + 50.0 * number) for number in range(10)]
    for n in (4, 10, 10):
        take_answers(file, [one for one in every[:n] if one.arrived > file.read_until])
        file.save()
        file = read_canary(file.path)
    assert file.canary.evidence.n_requests == 10
    # Those of the last two minutes, or as many as may be remembered.
    assert sorted(file.counted) == ["7", "8", "9"]
    assert file.read_until == every[6].arrived
    # A row that was written at the same time, and was seen later.
    take_answers(file, [arrival(99, every[8].arrived)])
    assert file.canary.evidence.n_requests == 11
