"""Preview a policy on a log: what it would have done and cost, before any answer was graded and any model asked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from probes.errors import DataError
from router.decision import RoutingDecision
from router.policies.loading import ServedPolicy
from router.quoting import quoted
from router.tuning.previewing.assumptions import say_assumptions
from router.tuning.previewing.logged_requests import LoggedRequest, RequestLog
from router.tuning.previewing.prompt_caches import TokenCounts, count_tokens, price_replay
from router.tuning.previewing.replay import (
    Replay,
    ReplayProgress,
    encode_texts,
    replay,
    without_sessions,
)
from router.tuning.previewing.savings import (
    Choices,
    PaidFigures,
    Resampling,
    Way,
    WayFigures,
    as_logged,
    keep_first,
    keep_one,
    measure_ways,
)
from router.tuning.previewing.slices_of_log import DecisionToRead, LogPart, decisions_to_read, parts_of_log

#: The name of the way to answer that is the policy itself.
POLICY = "policy"


@dataclass(frozen=True)
class PreviewOptions:
    """Holds the options of a preview.

    Attributes:
        strong: the candidate that savings are measured against; None takes the strongest tier.
        show: decisions of each sort to read. with_text: whether to show the beginning of their prompts.
        resampling: how intervals are computed.
        encoder_dir: folder of the encoder's files; None looks for them.
    """

    strong: str | None = None
    show: int = 5
    with_text: bool = True
    resampling: Resampling = field(default_factory=Resampling)
    encoder_dir: Path | None = None


@dataclass(frozen=True)
class Preview:
    """Holds what a policy would have done with a log.

    Attributes:
        policy, policy_digest: of the policy. strong: the candidate that savings are measured against.
        format: of the log's files. n: requests replayed. n_sessions: sessions of two requests or more.
        n_in_sessions: requests in these.
        period: of the log, as ISO 8601 from and to; None if the log has no times.
        ways: the policy, and beside it other ways to answer.
        seeming_saving: what is saved if every request is decided by itself and caches are left out, as simple
            calculations have it, 0 to 1; None if a price is not known.
        paid: what the log says was paid; None if it does not say.
        reasons: number of requests by the reason of the decision. n_abstained: those that were not judged by the rule.
        n_refused: requests that the service would refuse. refused: their number by the message, the ten most frequent.
        parts: parts of the log, by the way of cutting and by label. to_read: decisions to read, by their sort.
        assumed: what the costs rest on, one sentence each.
        left_out: rows of the log that cannot be replayed, by reason; first_left_out: places of the first 100.
        notes: remarks on the log, each with a number of rows.
    """

    policy: str
    policy_digest: str
    strong: str
    format: str
    n: int
    n_sessions: int
    n_in_sessions: int
    period: tuple[str, str] | None
    ways: tuple[WayFigures, ...]
    seeming_saving: float | None
    paid: PaidFigures | None
    reasons: Mapping[str, int]
    n_abstained: int
    n_refused: int
    refused: Mapping[str, int]
    parts: Mapping[str, Mapping[str, LogPart]]
    to_read: Mapping[str, tuple[DecisionToRead, ...]]
    assumed: tuple[str, ...]
    left_out: Mapping[str, int]
    first_left_out: tuple[str, ...]
    notes: Mapping[str, int]

    @property
    def own(self) -> WayFigures:
        """The figures of the policy itself."""
        return self.ways[0]

    @property
    def always_strong(self) -> WayFigures:
        """The figures if the strong candidate answers everything that it may."""
        return next(one for one in self.ways if one.name == f"always {self.strong}")

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return asdict(self)


def preview_policy(
    served: ServedPolicy, log: RequestLog, options: PreviewOptions, on_progress: ReplayProgress | None = None
) -> Preview:
    """Return what a policy would have done with a log. No model is asked, and no label is needed.

    Raises DataError if the policy does not have the strong candidate of the options, or refuses every request.
    """
    names = served.rules.file.names
    strong = _number_of(names, options.strong)
    requests = log.requests
    features = encode_texts(served, requests, options.encoder_dir, on_progress)
    ours = replay(served, requests, features, on_progress)
    if not ours.answered.any():
        raise DataError(f"the policy refuses every request of the log; the first error is: {ours.decisions[0]}")
    alone = ours
    if served.rules.file.sessions != "ignore" and any(one.session for one in requests):
        alone = replay(without_sessions(served), requests, features, on_progress)
    tokens = count_tokens(requests, served.rules.file.candidates)
    ways = _ways(served, requests, tokens, (ours, alone), names[strong])
    figures, paid = measure_ways(requests, ways, f"always {names[strong]}", names, options.resampling)
    bills = {way.name: way.bill for way in ways}
    decided = [one for one in ours.decisions if isinstance(one, RoutingDecision)]
    turns = Counter(one.session for one in requests if one.session)
    long = [count for count in turns.values() if count > 1]
    return Preview(
        policy=served.ref.name,
        policy_digest=served.ref.digest,
        strong=names[strong],
        format=log.format,
        n=len(requests),
        n_sessions=len(long),
        n_in_sessions=sum(long),
        period=_period(log),
        ways=figures,
        seeming_saving=_seeming_saving(served, tokens, alone, strong),
        paid=paid,
        reasons=dict(Counter(one.reason.value for one in decided).most_common()),
        n_abstained=sum(one.abstained for one in decided),
        n_refused=len(requests) - len(decided),
        refused=dict(Counter(str(one)[:200] for one in ours.decisions if isinstance(one, Exception)).most_common(10)),
        parts=parts_of_log(requests, ours, bills[POLICY], bills[f"always {names[strong]}"], names),
        to_read=decisions_to_read(requests, ours, options.show, with_text=options.with_text),
        assumed=say_assumptions(served, log, tokens),
        left_out=log.left_out_counts,
        first_left_out=tuple(f"{one.place}: {one.why}" for one in log.left_out[:100]),
        notes=dict(log.notes),
    )


def _ways(
    served: ServedPolicy,
    requests: Sequence[LoggedRequest],
    tokens: TokenCounts,
    replays: tuple[Replay, Replay],
    strong: str,
) -> list[Way]:
    """Return the ways to answer that are compared, the policy first. replays: as it is, and without sessions."""
    ours, alone = replays
    candidates, names = served.rules.file.candidates, served.rules.file.names
    chosen: dict[str, tuple[str, Choices | None]] = {POLICY: ("the policy as it is served", ours.chosen)}
    if any(part is not None for part in tokens.parts):
        kept = keep_first(requests, ours)
        chosen["never switch"] = ("each session stays with the candidate of its first request", kept)
        switched = np.where(ours.answered, alone.chosen, ours.chosen)
        chosen["always switch"] = ("each request is decided by itself, whoever answered its session before", switched)
    for name in dict.fromkeys((strong, *names)):
        chosen[f"always {name}"] = (f"{name} answers everything that it may", keep_one(ours, names.index(name)))
    logged = as_logged(requests, ours, candidates)
    chosen["as logged"] = ("the candidates that answered in the log, at list prices", logged)
    return [
        Way(name, about, who, price_replay(requests, who, tokens, candidates, served.rules.prices))
        for name, (about, who) in chosen.items()
        if who is not None
    ]


def _seeming_saving(served: ServedPolicy, tokens: TokenCounts, alone: Replay, strong: int) -> float | None:
    """Return what is saved by deciding each request by itself if no prompt were cached; None without prices."""
    rows = np.flatnonzero(alone.answered)
    cost = base = 0.0
    for row in rows.tolist():
        number = int(alone.chosen[row])
        own, other = served.rules.prices[number], served.rules.prices[strong]
        if own is None or other is None:
            return None
        cost += own.cost_usd(tokens.input[row], tokens.output[row, number])
        base += other.cost_usd(tokens.input[row], tokens.output[row, strong])
    return 1.0 - cost / base if base else None


def _number_of(names: Sequence[str], strong: str | None) -> int:
    if strong is None:
        return len(names) - 1
    if strong not in names:
        raise DataError(f"--strong must be a candidate of the policy ({', '.join(names)}), got {quoted(strong)}.")
    return names.index(strong)


def _period(log: RequestLog) -> tuple[str, str] | None:
    if log.n_without_time == len(log.requests):
        return None
    first, last = (datetime.fromtimestamp(one.asked_at or 0.0, UTC) for one in (log.requests[0], log.requests[-1]))
    return first.isoformat(timespec="seconds"), last.isoformat(timespec="seconds")
