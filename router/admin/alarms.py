"""Say what an operator should look at now (`alarms`)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from router.decision import Reason
from router.observing import catalogue
from router.observing.history import Growth
from router.observing.tally import Snapshot

#: Decisions, or answers, below which a share of them raises no alarm.
_LEAST_COUNT = 20

_MOST_FAILED_OPEN, _MOST_ABSTAINED, _MOST_FAILED_ANSWERS = 0.01, 0.3, 0.05

#: Days before its end at which a certificate raises an alarm.
_CERTIFICATE_DAYS = 14


def alarms(grown: Growth, snapshot: Snapshot, now: float) -> list[dict[str, Any]]:
    """Return the alarms, each with what is wrong and what to do.

    grown: what was counted in the period. snapshot: everything now. now: the Unix time in seconds.
    """
    found = (*_of_decisions(grown), *_of_answers(grown), *_of_policies(snapshot, now))
    return [{"what": what, "do": do} for what, do in found]


def _of_decisions(grown: Growth) -> Iterator[tuple[str, str]]:
    decisions = grown.total(catalogue.DECISIONS)
    failed = grown.total(catalogue.DECISIONS, reason=Reason.FAILED_OPEN.value)
    abstained = grown.total(catalogue.DECISIONS, reason=Reason.ABSTAINED.value)
    if decisions >= _LEAST_COUNT and failed > _MOST_FAILED_OPEN * decisions:
        yield f"{failed / decisions:.1%} of the prompts could not be judged.", "Read the log: encoder or probe fail."
    if decisions >= _LEAST_COUNT and abstained > _MOST_ABSTAINED * decisions:
        yield (
            f"The router abstains on {abstained / decisions:.0%} of the prompts.",
            "The traffic is unlike the fit. Collect outcomes of it and fit anew.",
        )
    if overloaded := grown.total(catalogue.REFUSED, reason="OVERLOADED"):
        yield f"{overloaded:,.0f} requests were refused for load.", "Add workers or machines (docs/capacity.md)."


def _of_answers(grown: Growth) -> Iterator[tuple[str, str]]:
    answers, failed = grown.total(catalogue.ANSWERS), grown.total(catalogue.ANSWERS, outcome="failed")
    if answers >= _LEAST_COUNT and failed > _MOST_FAILED_ANSWERS * answers:
        yield f"{failed / answers:.1%} of the answers failed.", "See which candidate fails, below and in the log."


def _of_policies(snapshot: Snapshot, now: float) -> Iterator[tuple[str, str]]:
    for (what,), failing in snapshot.series(catalogue.WATCHED_FAILING).items():
        if failing:
            yield f"The {what} cannot be read anew; the last good state stays.", "Read the log, and mend what it names."
    for (probe, signal), value in snapshot.series(catalogue.DRIFT_ALARM).items():
        if value:
            yield f"The traffic of probe {probe} drifts in {signal}.", "See what `elle drift` says of it."
    if snapshot.value(catalogue.LEDGER_DOWN):
        yield "The ledger's database takes no rows; they wait in the spool.", "Read the log, and mend the database."
    if not snapshot.value(catalogue.WORKERS):
        yield "No process serves.", "Read the log: it says why the last one ended."
    if (tls := snapshot.value(catalogue.TLS_EXPIRES)) and tls - now < _CERTIFICATE_DAYS * 86400:
        yield "The TLS certificate ends soon, or has ended.", "Renew it; the service takes new files over by itself."
    for (policy, version), expires in snapshot.series(catalogue.CERTIFICATE_EXPIRES).items():
        days = (expires - now) / 86400
        if days < _CERTIFICATE_DAYS:
            when = "has expired" if days < 0 else f"expires in {days:.0f} days"
            yield (
                f"The certificate of {policy} {version} {when}.",
                "Tune the policy on outcomes of today (docs/tune.md).",
            )
