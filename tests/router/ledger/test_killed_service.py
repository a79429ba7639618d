"""A service that is killed loses nothing that it acknowledged, and one that is stopped loses nothing at all."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest

from router.client import RouterClient
from router.feedback.pieces import FeedbackKind, FeedbackPiece
from router.ledger.opening import opened_reader
from router.ledger.settings import LedgerSettings
from router.values import Overrides
from tests.router.serving.processes import elle_serve, wait_until

pytestmark = pytest.mark.slow


def kept(place: Path) -> tuple[list[str], list[str]]:
    """Return the ids of decisions and of feedback in a ledger."""
    with opened_reader(LedgerSettings(str(place))) as reader:
        decisions = list(reader.decisions())
    return [one.decision_id for one in decisions], [piece.feedback_id for one in decisions for piece in one.feedback]


def ask(address: str, n: int) -> tuple[list[str], list[str]]:
    """Return the ids of n decisions, and of the feedback on every third one."""
    decisions, feedback = [], []
    for number in range(n):
        # A new connection may reach another worker.
        with RouterClient(address) as client:
            decision = client.route(f"prompt {number}", Overrides(pin="economy"))
            decisions.append(decision.decision_id)
            if number % 3 == 0:
                piece = FeedbackPiece(
                    FeedbackKind.CHECK, 1.0, decision.decision_id, idempotency_key=decision.decision_id
                )
                feedback.append(client.feedback(piece).feedback_id)
    return decisions, feedback


@pytest.mark.usefixtures("_real_encoder")
def test_sigterm_writes_the_last_decision(tmp_path: Path) -> None:
    place = tmp_path / "ledger.db"
    with elle_serve("--ledger", str(place), "--drain-delay-s", "0") as service:
        decisions, feedback = ask(service.address, 20)
        service.process.send_signal(signal.SIGTERM)
        assert service.process.wait(30) == 0
    assert kept(place) == (decisions, feedback)


@pytest.mark.usefixtures("_real_encoder")
def test_sigkill_loses_no_feedback_and_no_decision_of_a_second_ago(tmp_path: Path) -> None:
    place = tmp_path / "ledger.db"
    with elle_serve("--ledger", str(place), "--workers", "2") as service:
        decisions, feedback = ask(service.address, 20)
        time.sleep(1)
        late, late_feedback = ask(service.address, 4)
        service.process.kill()
    found: tuple[list[str], list[str]] = ([], [])

    def has_all() -> bool:
        nonlocal found
        found = kept(place)
        return set(decisions) <= set(found[0]) and {*feedback, *late_feedback} == set(found[1])

    wait_until(has_all)
    assert len(found[0]) == len(set(found[0])) <= len(decisions) + len(late)
