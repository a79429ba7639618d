"""Compute what the operator's page and `elle top` show, out of the counts and their history (`figures`)."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from typing import Any

from router.admin.alarms import alarms
from router.admin.watched import watch_figures
from router.decision import Reason
from router.observing import catalogue
from router.observing.history import CountSample, Growth, History
from router.observing.tally import Snapshot
from router.times import utc_text

#: The periods that the figures may be about, in seconds; None is all the time since the start.
PERIODS: Mapping[str, float | None] = {"15m": 900.0, "1h": 3600.0, "24h": 86400.0, "all": None}

#: Seconds that "now" is about.
_NOW_S = 60.0

#: Most points of a plot.
_MOST_POINTS = 240

#: The reasons by which the router declines to judge or cannot.
_UNDECIDED = {Reason.ABSTAINED.value, Reason.FAILED_OPEN.value}

#: What each reason says, for people.
_REASONS = {
    Reason.GAIN_BELOW_THRESHOLD: "A stronger tier is not worth its price here",
    Reason.GAIN_ABOVE_THRESHOLD: "A stronger tier is worth its price",
    Reason.WITHIN_RISK_BOUND: "The cheapest candidate whose risk is within the bound",
    Reason.NONE_WITHIN_RISK_BOUND: "No candidate is within the bound; the one of least risk",
    Reason.FIXED: "The policy always chooses this candidate",
    Reason.PINNED: "The request asks for this candidate",
    Reason.ONLY_ELIGIBLE: "No other candidate may answer",
    Reason.ABSTAINED: "Unlike the prompts of the fit: the safe default",
    Reason.FAILED_OPEN: "The prompt could not be judged: the safe default",
    Reason.SESSION_HELD: "The session keeps its candidate",
    Reason.OVER_LIMIT: "The caller is over a limit: the cheapest candidate that can answer",
    Reason.EXPLORED: "Another candidate than the rule's, to learn from it (`explore`)",
}

#: Most callers that are listed.
_MOST_CALLERS = 50


def figures(history: History, period: str, canary: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return all figures of a period (one of `PERIODS`) as plain JSON values. `canary`: see `watch_figures`."""
    now, snapshot = history.now()
    line = [*history.line(PERIODS[period]), now]
    grown, lately = Growth(line[0], now), Growth(history.line(_NOW_S)[0], now)
    return {
        "period": period,
        "seconds": grown.seconds,
        "at": utc_text(now.at),
        "began": utc_text(history.began.at),
        "versions": [
            {"version": version, "python": python} for version, python in snapshot.series(catalogue.BUILD_INFO)
        ],
        "workers": int(snapshot.value(catalogue.WORKERS)),
        "restarts": int(sum(snapshot.series(catalogue.WORKER_RESTARTS).values())),
        "pending": int(snapshot.value(catalogue.ENCODER_PENDING)),
        "sessions": int(snapshot.value(catalogue.SESSIONS)),
        "now": _headline(lately),
        "period_total": _headline(grown),
        "candidates": _candidates(grown),
        "reasons": _reasons(grown),
        "refused": _ranked(grown.by(catalogue.REFUSED, "reason")),
        "turned_away": _ranked(grown.by(catalogue.TURNED_AWAY, "reason")),
        "callers": _callers(snapshot),
        "costs": _costs(grown),
        "session_decisions": grown.by(catalogue.SESSION_DECISIONS, "session"),
        "stages": _stages(grown),
        "cache": _cache(grown, snapshot),
        "served": list(_served(snapshot, now.at)),
        "tls": _tls(snapshot, now.at),
        **watch_figures(snapshot, canary),
        "alarms": alarms(grown, snapshot, now.at),
        "series": _series(_thinned(line)),
    }


def _headline(grown: Growth) -> dict[str, Any]:
    by_reason = grown.by(catalogue.DECISIONS, "reason")
    decisions, refused = sum(by_reason.values()), grown.total(catalogue.REFUSED)
    decided = decisions - sum(by_reason.get(reason, 0.0) for reason in _UNDECIDED)
    return {
        "seconds": grown.seconds,
        "decisions": decisions,
        "per_second": decisions / grown.seconds,
        "decided_share": _share(decided, decisions + refused),
        "abstained": by_reason.get(Reason.ABSTAINED.value, 0.0),
        "failed_open": by_reason.get(Reason.FAILED_OPEN.value, 0.0),
        "refused": refused,
        "p50_s": grown.quantile(catalogue.DECISION_SECONDS, ("total",), 0.5),
        "p99_s": grown.quantile(catalogue.DECISION_SECONDS, ("total",), 0.99),
    }


def _candidates(grown: Growth) -> list[dict[str, Any]]:
    decisions, costs = grown.by(catalogue.DECISIONS, "candidate"), grown.by(catalogue.EXPECTED_COST, "candidate")
    attempts = grown.by(catalogue.ATTEMPTS, "candidate")
    total = sum(decisions.values())
    return [
        {
            "name": name,
            "decisions": decisions.get(name, 0.0),
            "share": _share(decisions.get(name, 0.0), total),
            "expected_cost_usd": costs.get(name),
            "attempts": attempts.get(name, 0.0),
            "answered": grown.total(catalogue.ATTEMPTS, candidate=name, outcome="ANSWERED"),
            "fell_back": grown.total(catalogue.FELL_BACK, candidate=name),
            "answer_cost_usd": grown.total(catalogue.ANSWER_COST, candidate=name),
            "first_content_p95_s": grown.quantile(catalogue.FIRST_CONTENT_SECONDS, (name,), 0.95),
            "answer_p95_s": grown.quantile(catalogue.ANSWER_SECONDS, (name,), 0.95),
        }
        for name in sorted({*decisions, *attempts}, key=lambda name: -decisions.get(name, 0.0))
    ]


def _reasons(grown: Growth) -> list[dict[str, Any]]:
    by_reason = grown.by(catalogue.DECISIONS, "reason")
    total = sum(by_reason.values())
    return [
        {
            "code": code,
            "text": _REASONS[Reason(code)],
            "decisions": count,
            "share": _share(count, total),
        }
        for code, count in sorted(by_reason.items(), key=lambda one: -one[1])
    ]


def _callers(snapshot: Snapshot) -> list[dict[str, Any]]:
    """Return what callers with a token have used since the start, those whose answers cost most first."""
    decisions, costs = snapshot.series(catalogue.CALLER_DECISIONS), snapshot.series(catalogue.CALLER_COST)
    found: list[dict[str, Any]] = []
    for (name,), usd in costs.items():
        strong, cheapest = decisions.get((name, "strong"), 0.0), decisions.get((name, "cheapest"), 0.0)
        total = strong + cheapest
        found.append({"name": name, "decisions": total, "strong_share": _share(strong, total), "usd": usd})
    return sorted(found, key=lambda one: (-one["usd"], -one["decisions"], one["name"]))[:_MOST_CALLERS]


def _costs(grown: Growth) -> dict[str, Any]:
    strong, weak = grown.total(catalogue.ALWAYS_STRONG_COST), grown.total(catalogue.ALWAYS_WEAK_COST)
    decided = grown.total(catalogue.EXPECTED_COST)
    return {
        "decided_usd": decided,
        "strong_usd": strong,
        "weak_usd": weak,
        "cold_cache_usd": grown.total(catalogue.COLD_CACHE_COST),
        "saved_usd": strong - decided,
        "saved_share": _share(strong - decided, strong),
        "unpriced": grown.total(catalogue.UNPRICED),
        "answers_usd": grown.total(catalogue.ANSWER_COST),
    }


def _stages(grown: Growth) -> list[dict[str, Any]]:
    return [
        {"stage": stage}
        | {
            f"p{round(100 * share)}_s": grown.quantile(catalogue.DECISION_SECONDS, (stage,), share)
            for share in (0.5, 0.95, 0.99)
        }
        for stage in ("queue", "encode", "probe", "policy", "total")
    ]


def _cache(grown: Growth, snapshot: Snapshot) -> dict[str, Any]:
    hits, misses = grown.total(catalogue.CACHE_HITS), grown.total(catalogue.CACHE_MISSES)
    return {"hit_share": _share(hits, hits + misses), "entries": int(snapshot.value(catalogue.CACHE_ENTRIES))}


def _served(snapshot: Snapshot, now: float) -> Iterator[dict[str, Any]]:
    for policy, version, probe in sorted(snapshot.series(catalogue.POLICY_INFO)):
        expires = snapshot.series(catalogue.CERTIFICATE_EXPIRES).get((policy, version))
        days = None if expires is None else math.floor((expires - now) / 86400)
        yield {
            "policy": policy,
            "version": version,
            "probe": probe,
            "certificate_expires": None if expires is None else utc_text(expires),
            "certificate_days": days,
        }


def _tls(snapshot: Snapshot, now: float) -> dict[str, Any] | None:
    expires = snapshot.series(catalogue.TLS_EXPIRES).get(())
    return None if expires is None else {"expires": utc_text(expires), "days": math.floor((expires - now) / 86400)}


def _series(line: list[CountSample]) -> dict[str, Any]:
    """Return what the plots show: for each interval between samples the rates and times in it."""
    steps = [Growth(before, after) for before, after in itertools.pairwise(line) if after.at > before.at]
    rates = [step.by(catalogue.DECISIONS, "candidate") for step in steps]
    names = sorted({name for rate in rates for name in rate})
    return {
        "at": [round(step.after.at) for step in steps],
        "decisions": {
            name: [round(rate.get(name, 0.0) / s.seconds, 4) for rate, s in zip(rates, steps, strict=True)]
            for name in names
        },
        "cost_per_hour": {
            what: [round(3600 * step.total(metric) / step.seconds, 6) for step in steps]
            for what, metric in (
                ("as decided", catalogue.EXPECTED_COST),
                ("always strong", catalogue.ALWAYS_STRONG_COST),
                ("always weak", catalogue.ALWAYS_WEAK_COST),
            )
        },
        "milliseconds": {
            name: [_ms(step.quantile(catalogue.DECISION_SECONDS, ("total",), share)) for step in steps]
            for name, share in (("half within", 0.5), ("99 % within", 0.99))
        },
    }


def _thinned(line: list[CountSample]) -> list[CountSample]:
    stride = max(1, math.ceil(len(line) / _MOST_POINTS))
    return [*line[:-1][::stride], line[-1]]


def _ranked(counts: Mapping[str, float]) -> list[dict[str, Any]]:
    return [{"reason": name, "count": count} for name, count in sorted(counts.items(), key=lambda one: -one[1])]


def _share(part: float, whole: float) -> float | None:
    return part / whole if whole else None


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else round(1e3 * seconds, 3)
