"""`elle drift` says what changed, from a state file, from a ledger and from labels."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from rich.console import Console

from router.cli.main import cli
from router.cli.steps.drift_files import drift_to_dict, print_drift
from router.deciding import pipeline
from router.drift.label_watch import LabelWatch
from router.drift.settings import DriftSettings
from router.drift.watch import DriftWatch
from router.ledger.opening import open_ledger
from router.observing.observer import DecidedEvent
from router.values import RouteQuery
from tests.fakes import FakeEncoder, write_policy
from tests.router.drift.decisions import decision
from tests.router.ledger.rows import sqlite_ledger

BLOCKS = ("--drift-block-hours", 0, "--drift-block-requests", 50, "--drift-baseline-blocks", 2)
KINDS = ("greeting", "greeting", "code")


def run(*arguments: object) -> Result:
    return CliRunner().invoke(cli, ["drift", *[str(argument) for argument in arguments]])


def events() -> list[DecidedEvent]:
    """Return three blocks of decisions, the last one of another kind."""
    query = RouteQuery.from_prompt("why?")
    return [
        DecidedEvent(query, decision(kind, decision_id=f"{block:016x}{i:016x}"), "", None)
        for block, kind in enumerate(KINDS)
        for i in range(50)
    ]


@pytest.fixture
def state(tmp_path: Path) -> Path:
    path = tmp_path / "drift.json"
    watch = DriftWatch(DriftSettings(block_s=0, block_requests=50, baseline_blocks=2), state=path)
    for event in events():
        watch.decided(event)
    watch.save()
    return path


def test_a_state_says_which_signal_changed_and_ends_with_3(state: Path) -> None:
    done = run("--state", state, *BLOCKS, "--json")
    assert done.exit_code == 3, done.output
    found = json.loads(done.stdout)
    assert found["has_changed"]
    (traffic,) = found["traffic"]
    assert [name for name, signal in traffic["signals"].items() if signal["alarm"]] == ["kind"]
    assert traffic["baseline"] == {"blocks": 2, "requests": 100}
    assert traffic["expected_loss"] == {"chosen": pytest.approx(0.3), "least_risky": pytest.approx(0.1)}


def test_people_get_a_table_with_what_moved(state: Path) -> None:
    done = run("--state", state, *BLOCKS)
    assert "CHANGED" in done.stdout
    assert "greeting: 100% to 0%" in done.stdout or "code: 0% to 100%" in done.stdout
    assert "from the risks and without labels: 0.300" in done.stdout


def test_a_ledger_that_is_replayed_says_the_same_as_the_state(tmp_path: Path, state: Path) -> None:
    pytest.importorskip("sqlalchemy")
    settings = sqlite_ledger(tmp_path)
    ledger = open_ledger(settings)
    for event in events():
        ledger.decided(event)
    ledger.close()
    done = run("--ledger", settings.place, *BLOCKS, "--json")
    assert done.exit_code == 3, done.output
    replayed = json.loads(done.stdout)
    kept = json.loads(run("--state", state, *BLOCKS, "--json").stdout)
    assert replayed["traffic"][0]["signals"] == kept["traffic"][0]["signals"]


def test_a_ledger_of_the_environment_gives_way_to_a_state(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ELLE_LEDGER", "elsewhere.db")
    assert run("--state", state, *BLOCKS).exit_code == 3


@pytest.mark.parametrize(("n_graded", "left_out"), [(400, 0), (100, 300)])
def test_the_certified_loss_is_told_with_what_says_nothing_of_it(n_graded: int, left_out: int) -> None:
    watch = LabelWatch("large", 0.1)
    for number in range(400):
        losses = {"small": 0.0} | ({"large": 0.0} if number < n_graded else {})
        watch.add(decision(chosen="small"), losses)
    told = io.StringIO()
    print_drift({}, watch, Console(file=told, width=1000))
    assert f"Certified loss against large: at most 0.1. By {n_graded} requests it lies between" in told.getvalue()
    assert (f"{left_out} requests are left out" in told.getvalue()) is bool(left_out)
    certified = drift_to_dict({}, watch)["labels"]["certified_loss"]
    assert certified["left_out"] == LabelWatch.from_json(watch.to_json()).n_incomplete == left_out


def test_labels_that_agree_with_the_risks_speak_against_nothing_and_others_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = FakeEncoder()
    monkeypatch.setattr(pipeline, "load_encoder", lambda spec, folder: encoder)
    policy = write_policy(tmp_path)

    def labels(score: float) -> Path:
        path = tmp_path / f"labels-{score}.jsonl"
        rows = [
            {"prompt": f"another prompt {i}", "model": model, "score": score if model == "large" else 0.5}
            for i in range(400)
            for model in ("small", "large")
        ]
        path.write_text("\n".join(map(json.dumps, rows)))
        return path

    bad = run("--labels", labels(0.0), "--policy", policy, "--json")
    assert bad.exit_code == 3, bad.output
    (problem,) = [one for one in json.loads(bad.stdout)["labels"]["problems"] if "large" in one]
    assert "fails more often than its risk says: 1.00" in problem
    good = json.loads(run("--labels", labels(0.5), "--policy", policy, "--json").stdout)
    assert good["labels"]["candidates"]["small"]["n"] == 400
    assert good["labels"]["certified_loss"] is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "give --state or --ledger"),
        (("--state", "missing.json"), "there is no drift state missing.json"),
        (("--state", "a", "--ledger", "b"), "give --state or --ledger, not both"),
        (("--state", "a", "--drift-block-hours", "day"), "'day' is not a valid number"),
        (("--labels", "x.jsonl"), "need each other"),
        (("--ledger", "missing.db"), "missing.db"),
    ],
)
def test_what_cannot_be_read_is_told_in_a_line(arguments: tuple[str, ...], message: str) -> None:
    done = run(*arguments)
    assert done.exit_code in (1, 2)
    assert message in done.output
    assert "Traceback" not in done.output
