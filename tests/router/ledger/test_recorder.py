"""The ledger holds what was decided and answered, nothing of the prompt, and can be read in order."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from router.attempts import Attempt, AttemptOutcome
from router.deciding.pipeline import Router
from router.decision import RoutingDecision
from router.errors import ConfigError, UpstreamUnavailableError
from router.ledger.opening import opened_reader
from router.ledger.reader import LoggedDecision, Span
from router.ledger.recorder import Ledger
from router.ledger.settings import LedgerSettings
from router.observing.observer import AnsweredEvent, AnswerOutcome, Observers
from router.policies.loading import load_policies
from router.values import Overrides, RouteQuery
from tests.fakes import FakeEncoder, write_policy
from tests.router.ledger.rows import sqlite_ledger

SECRET = "the launch code is 0042"


def decided(folder: Path, settings: LedgerSettings, *queries: RouteQuery) -> list[RoutingDecision]:
    """Decide queries with a router that records in a ledger."""
    ledger = Ledger(settings)
    encoder = FakeEncoder()
    router = Router(
        load_policies([write_policy(folder)]), {encoder.spec.identity: encoder}, observers=Observers(ledger)
    )
    decisions = [router.decide(query, caller="key-of-me") for query in queries]
    for decision in decisions:
        attempts = (
            Attempt("small", AttemptOutcome.UNAVAILABLE, http_status=503, duration_s=0.5),
            Attempt("large", AttemptOutcome.ANSWERED, duration_s=1.0),
        )
        usage = {"input_tokens": 12, "output_tokens": 3, "cost_usd": 0.001}
        ledger.answered(AnsweredEvent(decision, AnswerOutcome.ANSWERED, "large", attempts, 1.5, **usage))
    ledger.close()
    return decisions


def logged(settings: LedgerSettings, span: Span = Span()) -> list[LoggedDecision]:  # noqa: B008
    with opened_reader(settings) as reader:
        found = list(reader.decisions(span))
        assert len(found) == reader.count(span)
        return found


def test_a_decision_is_kept_whole_with_its_answer(tmp_path: Path) -> None:
    settings = sqlite_ledger(tmp_path)
    query = RouteQuery.from_prompt(
        SECRET, session_id="my session", request_id="req-7", overrides=Overrides(max_cost_usd=1.0, max_risk=0.3)
    )
    with pytest.raises(ConfigError, match="does not exist; `elle serve"):
        logged(settings)
    (decision,) = decided(tmp_path, settings, RouteQuery.from_prompt(SECRET, session_id="s", request_id="req-7"))
    (found,) = logged(settings)
    values = found.values
    assert found.decision_id == decision.decision_id
    assert (values["policy_digest"], values["probe_digest"]) == (decision.policy.digest, decision.probe.digest)
    assert (values["chosen"], values["reason"]) == (decision.chosen, decision.reason.value)
    assert [(one.candidate, one.risk, one.raw, one.eligible) for one in found.candidates] == [
        (one.candidate, one.risk, one.raw, one.eligible) for one in decision.candidates
    ]
    assert (values["gain"], values["threshold"], values["leverage"]) == (
        decision.gain,
        decision.threshold,
        decision.leverage,
    )
    assert (values["request_id"], values["propensity"], values["prompt"]) == ("req-7", 1.0, None)
    assert found.outcome is not None
    assert (found.outcome.outcome, found.answered_by, found.outcome.cost_usd) == ("answered", "large", 0.001)
    assert [one["outcome"] for one in found.outcome.attempts] == ["UNAVAILABLE", "ANSWERED"]
    assert query.request_id


def test_nothing_of_prompt_session_or_credential_is_in_the_files(tmp_path: Path) -> None:
    settings = sqlite_ledger(tmp_path / "ledger", spool_dir=tmp_path / "spool")
    (tmp_path / "ledger").mkdir()
    one = RouteQuery.from_prompt(SECRET, session_id="my session")
    other = RouteQuery.from_prompt("something else", session_id="my session")
    decided(tmp_path, settings, one, other, one)
    kept = b"".join(path.read_bytes() for path in (tmp_path / "ledger").iterdir())
    for secret in (b"launch code", b"my session", b"key-of-me"):
        assert secret not in kept
    first, second, third = logged(settings)
    # Equal things have equal digests, so that they can be counted and joined.
    assert first.values["prompt_digest"] == third.values["prompt_digest"] != second.values["prompt_digest"]
    assert first.values["session"] == second.values["session"]
    assert first.values["caller"] == second.values["caller"]


def test_another_key_makes_other_digests(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    digests = []
    for folder in (tmp_path / "a", tmp_path / "b"):
        decided(folder, sqlite_ledger(folder), RouteQuery.from_prompt(SECRET))
        digests.append(logged(sqlite_ledger(folder))[0].values["prompt_digest"])
    assert digests[0] != digests[1]


def test_prompts_and_features_are_kept_if_the_user_says_so(tmp_path: Path) -> None:
    settings = sqlite_ledger(tmp_path, keep_prompts=True, keep_features=True)
    decided(tmp_path, settings, RouteQuery.from_prompt(f"{SECRET}\0"))
    (found,) = logged(settings)
    assert found.values["prompt"].startswith(SECRET)
    assert "\0" not in found.values["prompt"]
    encoder = FakeEncoder()
    assert found.values["encoder"] == encoder.spec.identity
    assert found.features is not None
    np.testing.assert_allclose(found.features, encoder.encode(f"{SECRET}\0"), atol=1e-2)


def test_decisions_are_read_in_order_by_time_and_by_policy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("router.ledger.reader._PAGE_ROWS", 2)
    settings = sqlite_ledger(tmp_path)
    made = decided(tmp_path, settings, *(RouteQuery.from_prompt(f"prompt {n}") for n in range(5)))
    ids = [one.decision_id for one in made]
    assert ids == sorted(ids)
    assert [one.decision_id for one in logged(settings)] == ids
    assert logged(settings, Span(policy="nobody")) == []
    assert len(logged(settings, Span(policy_digest=made[0].policy.digest))) == 5
    assert logged(settings, Span(since=4e9)) == []
    assert logged(settings, Span(until=1e9)) == []
    with opened_reader(settings) as reader:
        found = reader.decision(ids[3])
        assert found is not None
        assert found.decision_id == ids[3]
        assert reader.decision("0" * 32) is None


def test_a_failed_answer_is_kept_by_the_name_of_its_error(tmp_path: Path) -> None:
    settings = sqlite_ledger(tmp_path)
    (decision,) = decided(tmp_path, settings, RouteQuery.from_prompt("x"))
    ledger = Ledger(settings)
    error = UpstreamUnavailableError(f"it said {SECRET}")
    other = decision.__class__(
        **{name: getattr(decision, name) for name in decision.__slots__} | {"decision_id": "f" * 32}
    )
    ledger.answered(AnsweredEvent(other, AnswerOutcome.FAILED, "", (), 0.1, error=error))
    ledger.close()
    with opened_reader(settings) as reader, reader.reading() as connection:
        rows = connection.exec_driver_sql("SELECT decision_id, error FROM outcomes ORDER BY decision_id").all()
    assert rows[-1] == ("f" * 32, "UPSTREAM_UNAVAILABLE")


def test_a_key_that_is_too_short_and_an_odd_url_are_refused(tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("short")
    with pytest.raises(ConfigError, match="at least 16 bytes, got 5"):
        Ledger(sqlite_ledger(tmp_path, key_file=key))
    with pytest.raises(ConfigError, match="--ledger-key must name a file"):
        LedgerSettings("postgresql://somewhere/else").key()
    with pytest.raises(ConfigError, match=r"URL postgresql://\.\.\., got a URL 'mysql'"):
        LedgerSettings("mysql://me:secret@somewhere/else").url  # noqa: B018
    assert LedgerSettings("postgresql://me:secret@somewhere/else").name == "postgresql://somewhere/else"


def test_a_folder_is_no_ledger_and_a_database_that_is_away_is_said_at_the_start(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(ConfigError, match="must be a file"):
        Ledger(LedgerSettings(str(tmp_path)))
    (tmp_path / "key").write_text("0123456789abcdef")
    away = LedgerSettings(str(tmp_path / "away" / "ledger.db"), key_file=tmp_path / "key", spool_dir=tmp_path / "spool")
    Ledger(away).close()
    assert f"cannot use the ledger {away.place}" in caplog.text
    assert "rows go to the spool" in caplog.text
