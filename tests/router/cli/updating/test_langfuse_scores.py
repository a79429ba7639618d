"""`elle ledger scores` takes what Langfuse exports, and only what is a quality."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from router.cli.main import cli
from router.feedback.weighing import Opinion, graded_losses, opinions_of
from router.ledger.opening import open_ledger, opened_reader
from router.ledger.settings import LedgerSettings
from router.observing.observer import DecidedEvent
from router.times import new_id
from router.values import RouteQuery
from tests.router.drift.decisions import decision
from tests.router.ledger.rows import sqlite_ledger

IDS = [new_id() for _ in range(4)]


@pytest.fixture
def settings(tmp_path: Path) -> LedgerSettings:
    settings = sqlite_ledger(tmp_path)
    ledger = open_ledger(settings)
    for number, one in enumerate(IDS):
        # The last two requests have the same id.
        query = RouteQuery((), request_id=f"request-{min(number, 2)}")
        ledger.decided(DecidedEvent(query, decision(decision_id=one), "token:x", None))
    ledger.close()
    return settings


def run(settings: LedgerSettings, rows: list[dict[str, Any]], *more: str, status: int = 0) -> dict[str, Any]:
    file = Path(settings.place).with_name("scores.jsonl")
    file.write_text("\n".join(map(json.dumps, rows)))
    done = CliRunner().invoke(cli, ["ledger", "scores", str(file), "--ledger", settings.place, "--json", *more])
    assert done.exit_code == status, done.output
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def opinions(settings: LedgerSettings) -> dict[str, list[Opinion]]:
    with opened_reader(settings) as reader:
        return {one.decision_id: list(opinions_of(one)) for one in reader.decisions()}


def score(**values: Any) -> dict[str, Any]:
    return {
        "id": "s1",
        "name": "helpful",
        "trace_id": IDS[0],
        "value": 0.25,
        "data_type": "NUMERIC",
        "source": "EVAL",
    } | values


def test_scores_find_their_decision_by_its_id_by_the_request_and_by_what_litellm_wrote(
    settings: LedgerSettings,
) -> None:
    headers = {"hidden_params": {"additional_headers": {"llm_provider-x-elle-decision-id": IDS[3]}}}
    rows = [
        score(),
        score(id="s2", trace_id="request-1", value=1, data_type="BOOLEAN", source="ANNOTATION"),
        score(id="s3", trace_id="langfuse-7"),
        {"id": "o", "type": "GENERATION", "traceId": "langfuse-7", "metadata": json.dumps(headers)},
    ]
    for _ in range(2):
        told = run(settings, rows)
        assert (told["kept"], told["left_out"]) == (3, {})
    found = opinions(settings)
    assert [(one.kind, one.name, one.value, one.authority) for one in found[IDS[0]]] == [
        ("score", "helpful", 0.25, "judge")
    ]
    assert [(one.value, one.authority) for one in found[IDS[1]]] == [(1.0, "reviewer")]
    assert [one.value for one in found[IDS[3]]] == [0.25]
    with opened_reader(settings) as reader:
        assert [len(one.feedback) for one in reader.decisions()] == [1, 1, 0, 1]
        # They are about the answer that the caller got, so no canary takes them for a comparison.
        assert not any(graded_losses(one) for one in reader.decisions())


def test_a_score_that_was_changed_counts_as_it_is_now(settings: LedgerSettings) -> None:
    run(settings, [score()])
    run(settings, [score(value=0.75)])
    assert [one.value for one in opinions(settings)[IDS[0]]] == [0.75]


def test_what_is_no_quality_or_belongs_to_nobody_is_left_out_and_counted(settings: LedgerSettings) -> None:
    rows = [
        score(id="a", value=2, data_type="CATEGORICAL", string_value="bad"),
        score(id="b", data_type=None, value=1),
        score(id="c", value=7),
        score(id="d", value=None, data_type="TEXT", string_value="fine"),
        score(id="e", trace_id="nobody"),
        score(id="f", trace_id="request-2"),
        score(id="g", trace_id="' OR 1=1 --"),
    ]
    found = run(settings, rows, status=3)
    assert found["kept"] == 0
    assert sorted(found["left_out"].values()) == [3, 4]
    assert run(settings, [score(), score(id="h", name="other")], "--score", "other", status=3)["kept"] == 1
