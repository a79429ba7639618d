"""Serve the operator's page with counts of our own, without a service behind it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from router.admin.trial import try_prompt
from router.attempts import Attempt, AttemptOutcome
from router.deciding.pipeline import Router
from router.decision import Reason, Timings
from router.errors import OverloadedError
from router.observing import catalogue
from router.observing.cost_comparison import CostComparison
from router.observing.metrics import MetricsObserver
from router.observing.observer import AnsweredEvent, AnswerOutcome, DecidedEvent, RefusedEvent
from router.observing.tally import Snapshot, Tally
from router.observing.totals import Totals
from router.policies.loading import load_policies
from router.serving.settings import ServerSettings
from router.serving.watching.admin_port import serving_admin
from router.values import RouteQuery
from tests.fakes import FakeEncoder, probe_with_kinds, write_policy
from tests.router.observing.events import decision_of

#: When the certificate of the policy expires: long ago.
EXPIRED = 1_600_000_000.0


def state() -> Snapshot:
    return Snapshot(
        {
            catalogue.WORKERS.name: {(): 1.0},
            catalogue.BUILD_INFO.name: {("1.2.3", "3.11"): 1.0},
            catalogue.POLICY_INFO.name: {("test", "abcdef", "fedcba"): 1.0},
            catalogue.CERTIFICATE_EXPIRES.name: {("test", "abcdef"): EXPIRED},
            catalogue.TLS_EXPIRES.name: {(): EXPIRED},
            catalogue.SHADOW_DECISIONS.name: {("next", "small", "small"): 30.0, ("next", "small", "large"): 10.0},
            catalogue.SHADOW_UNCOMPARED.name: {("next", "refused"): 2.0},
            catalogue.SHADOW_COST.name: {("next", "serving"): 1.5, ("next", "shadow"): 2.5},
            catalogue.DRIFT_BLOCKS.name: {("fedcba",): 9.0},
            catalogue.DRIFT_DISTANCE.name: {("fedcba", "kinds"): 0.25, ("fedcba", "language"): 0.01},
            catalogue.DRIFT_ALARM.name: {("fedcba", "kinds"): 1.0, ("fedcba", "language"): 0.0},
            catalogue.LEDGER_ROWS.name: {("written",): 70.0, ("dropped",): 5.0},
            catalogue.LEDGER_DOWN.name: {(): 1.0},
            catalogue.CALLER_DECISIONS.name: {
                **{(f"team-{number}", tier): 1.0 for number in range(300) for tier in ("strong", "cheapest")},
                ("team-<b>", "strong"): 1.0,
                ("team-<b>", "cheapest"): 3.0,
            },
            catalogue.CALLER_COST.name: {**{(f"team-{number}",): 0.5 for number in range(300)}, ("team-<b>",): 7.25},
        }
    )


def counted() -> Tally:
    """Return counts of a little traffic: three decisions, one of which abstained, one refusal, and one answer."""
    tally = Tally(state)
    observer = MetricsObserver(tally)
    costs = CostComparison(chosen_usd=1.0, weak_usd=0.5, strong_usd=4.0, cold_cache_usd=0.25)
    decision = decision_of("test", "abcdef", timings=Timings(total_s=0.002))
    event = DecidedEvent(RouteQuery.from_prompt("x"), decision, "", None, costs=costs)
    for reason in (Reason.GAIN_BELOW_THRESHOLD, Reason.GAIN_BELOW_THRESHOLD, Reason.ABSTAINED):
        observer.decided(replace(event, decision=replace(decision, reason=reason)))
    observer.refused(RefusedEvent("test", "", OverloadedError("full", retry_after_s=1.0)))
    attempts = (Attempt("small", AttemptOutcome.ANSWERED),)
    observer.answered(AnsweredEvent(decision, AnswerOutcome.ANSWERED, "small", attempts, 1.5, 0.3, 10, 20, 0.01))
    return tally


@dataclass(frozen=True)
class Served:
    """Holds where the page is served, and what counts."""

    url: str
    totals: Totals


@contextlib.contextmanager
def served_page(folder: Path, **settings: Any) -> Iterator[Served]:
    encoder = FakeEncoder()
    policy = write_policy(folder, probe_with_kinds())
    router = Router(load_policies([policy]), {encoder.spec.identity: encoder})
    totals = Totals()
    totals.follow("service", counted().snapshot)
    asked = ServerSettings(admin_port=0, **settings)
    with serving_admin(asked, totals, lambda request: try_prompt(router, request)) as address:
        yield Served(f"http://{address}", totals)
