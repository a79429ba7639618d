"""A sample of a ledger is answered by both candidates and graded, and the grades go back into the ledger."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from router.cli.main import cli
from router.cli.updating.ledger_grades import labels_of_ledger
from router.decision import ArtifactRef, CandidateRisk
from router.errors import ConfigError
from router.feedback.weighing import graded_losses, opinions_of
from router.ledger.opening import open_ledger, opened_reader
from router.ledger.reader import LedgerReader
from router.ledger.settings import LedgerSettings
from router.observing.observer import AnsweredEvent, AnswerOutcome, DecidedEvent
from router.times import new_id
from router.values import RouteQuery
from tests.router.collecting.simulated import KINDS, prompt_of, rows_of, simulated, write_policy
from tests.router.collecting.test_judged_then_labelled import referee
from tests.router.drift.decisions import decision
from tests.router.ledger.rows import sqlite_ledger

pytest.importorskip("sqlalchemy")

N = 24
CANDIDATES = tuple(CandidateRisk(name, f"openai/{name}", 0.3, 0.3, None) for name in ("tiny", "medium"))


def elle(*arguments: object, status: int = 0) -> Any:
    done = CliRunner().invoke(cli, [str(one) for one in arguments])
    assert done.exit_code == status, done.output
    return done


def serve(settings: LedgerSettings, policy: str = "new", n: int = N) -> None:
    """Write n decisions for `tiny` and their answers into the ledger. Every fourth prompt is beyond both candidates."""
    ledger = open_ledger(settings)
    for number in range(n):
        made = decision(
            decision_id=new_id(), policy=ArtifactRef(policy, "1", "d"), chosen="tiny", candidates=CANDIDATES
        )
        prompt = prompt_of(KINDS[number % len(KINDS)], number)
        ledger.decided(DecidedEvent(RouteQuery.from_prompt(prompt), made, "", None, text=prompt))
        ledger.answered(AnsweredEvent(made, AnswerOutcome.ANSWERED, "tiny", (), total_s=1.0))
    ledger.close()


@pytest.fixture(scope="module")
def graded(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, LedgerSettings]:
    """Return a folder with a canary and outcomes, and a ledger with the grades of a sample of its decisions."""
    folder = tmp_path_factory.mktemp("both")
    settings = replace(sqlite_ledger(folder), keep_prompts=True)
    start = ("--base", "old", "--max-loss", 0.02, "--labels-per-step", 500, "--state", folder / "canary.json")
    elle("canary", "start", "new", *start)
    serve(settings, "old", 4)
    serve(settings)
    elle("ledger", "sample", "--ledger", settings.place, "--policy", "new", "--out", folder / "sample.jsonl")
    with simulated(answer=referee) as upstream:
        judges = write_policy(folder / "judges.yaml", upstream.url, ("tiny",))
        judges.write_text(judges.read_text().replace("tiny", "referee"))
        policy = write_policy(folder / "p.yaml", upstream.url, ("tiny", "medium"))
        asked = ("--judges", judges, "--grader", "judge:model=referee,reference=medium", "--yes")
        elle("collect", folder / "sample.jsonl", "--policy", policy, "--out", folder / "outcomes.jsonl", *asked)
    for _ in range(2):
        said = elle("ledger", "label", folder / "outcomes.jsonl", "--ledger", settings.place, "--json")
        told = json.loads(said.stdout)
        assert (told["kept"], told["unknown_decisions"], told["unknown_candidates"]) == (2 * N, [], [])
    return folder, settings


def test_every_decision_of_the_sample_has_a_grade_of_both_candidates(graded: tuple[Path, LedgerSettings]) -> None:
    folder, settings = graded
    scores = {(row["prompt_id"], row["model"]): row["score"] for row in rows_of(folder / "outcomes.jsonl")}
    with opened_reader(settings) as reader:
        found = list(reader.decisions())
    assert sum(len(one.feedback) for one in found) == 2 * N
    for one in found[4:]:
        assert graded_losses(one) == {name: 1 - scores[one.decision_id, name] for name in ("tiny", "medium")}
        # What the caller would say of the answer that it got is another matter.
        assert opinions_of(one) == ()
    assert {graded_losses(one)["tiny"] > graded_losses(one)["medium"] for one in found[4:]} == {True, False}


def test_the_canary_takes_them_from_the_ledger(graded: tuple[Path, LedgerSettings]) -> None:
    folder, settings = graded
    step = ("--ledger", settings.place, "--reference", "medium", "--state", folder / "canary.json")
    found = json.loads(elle("canary", "step", *step, "--json").stdout)
    assert (found["labels"], found["requests"]) == (N, N)
    assert json.loads(elle("canary", "step", *step, "--json").stdout)["labels"] == N


def test_they_are_outcomes_for_recalibrate(graded: tuple[Path, LedgerSettings]) -> None:
    folder, settings = graded
    with labels_of_ledger(settings.place, None, folder / "new") as (file,):
        assert file.stat().st_mode & 0o777 == 0o600
        kept = {(row["prompt_id"], row["model"], row["prompt"], row["score"]) for row in rows_of(file)}
    assert not file.exists()
    written = rows_of(folder / "outcomes.jsonl")
    assert kept == {(row["prompt_id"], row["model"], row["prompt"], row["score"]) for row in written}


def test_a_ledger_without_grades_or_prompts_is_no_source_of_labels(tmp_path: Path) -> None:
    settings = sqlite_ledger(tmp_path)
    serve(settings, n=1)
    with (
        pytest.raises(ConfigError, match="elle ledger label"),
        labels_of_ledger(settings.place, None, tmp_path / "new"),
    ):
        pass
    said = elle("recalibrate", "probe", "--out", tmp_path / "new", status=2)
    assert "give files of LABELS, or --ledger" in said.stderr


def test_what_the_ledger_does_not_know_is_said_and_the_rest_is_kept(tmp_path: Path) -> None:
    settings = sqlite_ledger(tmp_path)
    serve(settings, n=1)
    with LedgerReader.opened(settings) as reader:
        (known,) = (one.decision_id for one in reader.decisions())
    rows = [
        {"prompt": "p", "prompt_id": one, "model": model, "score": 1}
        for one, model in ((known, "tiny"), (known, "nobody"), ("x' OR 1=1 --", "tiny"), (new_id(), "tiny"))
    ]
    # The same text under several ids is several prompts.
    (tmp_path / "o.jsonl").write_text("\n".join(json.dumps(row | {"prompt": f"p {row['prompt_id']}"}) for row in rows))
    said = elle("ledger", "label", tmp_path / "o.jsonl", "--ledger", settings.place, "--json", status=3)
    found = json.loads(said.stdout)
    assert (found["kept"], found["unknown_candidates"]) == (1, ["nobody"])
    assert len(found["unknown_decisions"]) == 2
    assert (
        "1 grades are in the ledger"
        in elle("ledger", "label", tmp_path / "o.jsonl", "--ledger", settings.place, status=3).stdout
    )
    elle("ledger", "label", tmp_path / "o.jsonl", "--ledger", tmp_path / "none.db", status=1)
    assert not (tmp_path / "none.db").exists()
