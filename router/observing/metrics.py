"""Count decisions, refusals and answers for the metrics of the service (`MetricsObserver`)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from router.observing import catalogue
from router.observing.observer import Observer
from router.observing.tally import Labels, Tally

if TYPE_CHECKING:
    from router.decision import RoutingDecision, Timings
    from router.observing.observer import AnsweredEvent, DecidedEvent, RefusedEvent, SettledEvent

#: How many characters of a digest tell versions apart for people.
SHORT_DIGEST = 12


class MetricsObserver(Observer):
    """Counts everything that it is told. It takes a few microseconds for each event.

    Args:
        tally: keeps the counts.
    """

    def __init__(self, tally: Tally) -> None:
        self._tally = tally

    def decided(self, event: DecidedEvent) -> None:
        """Count a decision: its reason, its times, its costs, and what it means for its session."""
        decision, tally = event.decision, self._tally
        version = self._version(decision)
        tally.count(catalogue.DECISIONS, (*version, decision.chosen, decision.reason.value))
        tally.count(catalogue.SESSION_DECISIONS, (*version, _session(event)))
        self._count_cache(event)
        self._observe_times(decision.timings, was_judged=decision.difficulty is not None)
        if (costs := event.costs) is None:
            tally.count(catalogue.UNPRICED, version)
            return
        tally.count(catalogue.EXPECTED_COST, (*version, decision.chosen), costs.chosen_usd)
        tally.count(catalogue.ALWAYS_STRONG_COST, version, costs.strong_usd)
        tally.count(catalogue.ALWAYS_WEAK_COST, version, costs.weak_usd)
        if costs.cold_cache_usd:
            tally.count(catalogue.COLD_CACHE_COST, version, costs.cold_cache_usd)

    def refused(self, event: RefusedEvent) -> None:
        """Count a refusal by its reason."""
        self._tally.count(catalogue.REFUSED, (event.error.reason,))

    def answered(self, event: AnsweredEvent) -> None:
        """Count an answer: who gave it, after which attempts, how long it took, and what it cost."""
        decision, tally = event.decision, self._tally
        version = self._version(decision)
        for attempt in event.attempts:
            tally.count(catalogue.ATTEMPTS, (*version, attempt.candidate, attempt.outcome.value))
        by = (*version, event.answered_by)
        tally.count(catalogue.ANSWERS, (*by, event.outcome.value))
        if not event.answered_by:
            return
        if event.answered_by != decision.chosen:
            tally.count(catalogue.FELL_BACK, (*version, decision.chosen))
        tally.observe(catalogue.ANSWER_SECONDS, by, event.total_s)
        if event.first_content_s is not None:
            tally.observe(catalogue.FIRST_CONTENT_SECONDS, by, event.first_content_s)
        self._count_usage(by, event)

    def settled(self, event: SettledEvent) -> None:
        """Count the tokens and the cost of an answer that was counted without them when it was given."""
        self._count_usage((*self._version(event), event.answered_by), event)

    def _count_usage(self, by: Labels, event: AnsweredEvent | SettledEvent) -> None:
        counted = (
            (catalogue.INPUT_TOKENS, event.input_tokens),
            (catalogue.OUTPUT_TOKENS, event.output_tokens),
            (catalogue.ANSWER_COST, event.cost_usd),
        )
        for metric, value in counted:
            if value is not None:
                self._tally.count(metric, by, value)

    def _version(self, told: RoutingDecision | SettledEvent) -> Labels:
        version = told.policy.name, told.policy.digest[:SHORT_DIGEST]
        self._tally.use(version)
        return version

    def _count_cache(self, event: DecidedEvent) -> None:
        if event.decision.timings.cached:
            self._tally.count(catalogue.CACHE_HITS)
        elif event.features is not None and event.caller:
            self._tally.count(catalogue.CACHE_MISSES)

    def _observe_times(self, timings: Timings, *, was_judged: bool) -> None:
        observe, metric = self._tally.observe, catalogue.DECISION_SECONDS
        if timings.encode_s:
            observe(metric, ("queue",), timings.queue_s)
            observe(metric, ("encode",), timings.encode_s)
        if was_judged and not timings.cached:
            observe(metric, ("probe",), timings.probe_s)
        observe(metric, ("policy",), timings.policy_s)
        observe(metric, ("total",), timings.total_s)


def _session(event: DecidedEvent) -> str:
    if not event.decision.session_id:
        return "none"
    if event.held is None:
        return "new"
    return "kept" if event.held.candidate == event.decision.chosen else "moved"
