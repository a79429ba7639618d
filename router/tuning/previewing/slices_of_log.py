"""Cut a replayed log into parts, by form, kind, group, task and language, and choose decisions to read."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from router.decision import Reason, RoutingDecision
from router.explaining.reason_words import describe_reason
from router.tuning.previewing.logged_requests import LoggedRequest
from router.tuning.previewing.prompt_caches import Bill
from router.tuning.previewing.replay import Replay

#: The largest number of parts of one way of cutting that are shown; the others count together.
MOST_PARTS = 20

#: The largest number of characters of a prompt that are shown.
MOST_TEXT = 240

_OTHERS = "(all others)"


@dataclass(frozen=True)
class LogPart:
    """Holds what the policy does with one part of the log.

    Attributes:
        n: requests. shares: share of them that each candidate answers, by its name.
        cost_usd: of the policy; saved: share of always the strong candidate's cost; None if a price is not known.
        abstained_share: share of the requests that the router declined to judge, 0 to 1.
    """

    n: int
    shares: Mapping[str, float]
    cost_usd: float | None
    saved: float | None
    abstained_share: float


@dataclass(frozen=True)
class DecisionToRead:
    """Shows one decision: where its request was read, who was chosen, and why.

    Attributes:
        place: file and line. session: its id; empty if it has none.
        text: the beginning of what was judged, at most MOST_TEXT characters; None if texts are not wanted.
        chosen: the candidate that answers. would_choose: the rule's own choice if the router abstained; else empty.
        why: the reason in words. margin: how far the deciding number lies from its threshold; None without one.
        risks: calibrated risk of each candidate by its name; None where it was not judged.
        leverage: how far the prompt lies from what the probe knows; None if it was not judged.
    """

    place: str
    session: str
    text: str | None
    chosen: str
    would_choose: str
    why: str
    margin: float | None
    risks: Mapping[str, float | None]
    leverage: float | None


def form_of_request(request: LoggedRequest, decision: RoutingDecision) -> str:
    """Return the form of a request: what it holds besides plain text, or whether it goes on with a tool's answer."""
    ask = request.ask
    if ask.in_tool_loop:
        return "tool loop"
    if ask.needs - {"tools", "json_schema"}:
        return "with " + ", ".join(sorted(ask.needs - {"tools", "json_schema"}))
    return "with code" if decision.has_code else "text"


def _nearest_kind(_: LoggedRequest, decision: RoutingDecision) -> str:
    if decision.kinds is None:
        return ""
    return decision.kinds.nearest[0].name if decision.kinds.known else "(far from all known kinds)"


def parts_of_log(
    requests: Sequence[LoggedRequest], ours: Replay, bill: Bill, strong: Bill, names: Sequence[str]
) -> dict[str, dict[str, LogPart]]:
    """Return the parts of the log that the policy answers, by the way of cutting and then by label, largest first.

    The kinds are those that the probe knows, see `probes.kinds`. A way of cutting that gives one part only is left out.
    """
    ways: dict[str, Callable[[LoggedRequest, RoutingDecision], str]] = {
        "form": form_of_request,
        "kind": _nearest_kind,
        "group": lambda request, _: request.group,
        "task": lambda _, decision: decision.task,
        "language": lambda _, decision: decision.language,
    }
    answered = [
        (row, request, decision)
        for row, (request, decision) in enumerate(zip(requests, ours.decisions, strict=True))
        if isinstance(decision, RoutingDecision)
    ]
    found = {}
    for way, label in ways.items():
        rows: dict[str, list[int]] = defaultdict(list)
        for row, request, decision in answered:
            rows[label(request, decision) or "(none)"].append(row)
        if len(rows) > 1:
            found[way] = {
                name: _part(np.array(members), ours, bill, strong, names) for name, members in _largest(rows).items()
            }
    return found


def _largest(rows: Mapping[str, list[int]]) -> dict[str, list[int]]:
    ordered = sorted(rows, key=lambda name: (-len(rows[name]), name))
    found = {name: rows[name] for name in ordered[:MOST_PARTS]}
    rest = [row for name in ordered[MOST_PARTS:] for row in rows[name]]
    return found | ({_OTHERS: rest} if rest else {})


def _part(rows: npt.NDArray[np.int64], ours: Replay, bill: Bill, strong: Bill, names: Sequence[str]) -> LogPart:
    cost, base = float(bill.cost_usd[rows].sum()), float(strong.cost_usd[rows].sum())
    decisions = [ours.decisions[row] for row in rows.tolist()]
    return LogPart(
        n=len(rows),
        shares={name: float((ours.chosen[rows] == number).mean()) for number, name in enumerate(names)},
        cost_usd=cost if np.isfinite(cost) else None,
        saved=1.0 - cost / base if np.isfinite(cost) and np.isfinite(base) and base > 0 else None,
        abstained_share=sum(isinstance(one, RoutingDecision) and one.abstained for one in decisions) / len(rows),
    )


#: Reasons of decisions that compared a number with a threshold, and whether the cheaper candidate won.
_CHEAP = (Reason.GAIN_BELOW_THRESHOLD, Reason.WITHIN_RISK_BOUND)
_STRONG = (Reason.GAIN_ABOVE_THRESHOLD, Reason.NONE_WITHIN_RISK_BOUND)


def decisions_to_read(
    requests: Sequence[LoggedRequest], ours: Replay, most: int, *, with_text: bool
) -> dict[str, tuple[DecisionToRead, ...]]:
    """Return up to `most` decisions of each sort that is worth reading, each text once.

    The sorts are the closest decisions, the surest ones for the cheapest candidate and for a stronger one, and the
    abstentions on the prompts that are least like what the probe knows.
    """
    judged: list[tuple[LoggedRequest, RoutingDecision, float | None]] = []
    seen: set[str] = set()
    for request, decision in zip(requests, ours.decisions, strict=True):
        if isinstance(decision, RoutingDecision) and decision.leverage is not None and request.ask.text not in seen:
            seen.add(request.ask.text)
            judged.append((request, decision, margin_of(decision)))
    compared = [(request, one, margin) for request, one, margin in judged if margin is not None]

    def shown(rows: Sequence[tuple[LoggedRequest, RoutingDecision, float | None]]) -> tuple[DecisionToRead, ...]:
        return tuple(_shown(*row, with_text=with_text) for row in rows[:most])

    def surest(reasons: Sequence[Reason]) -> list[tuple[LoggedRequest, RoutingDecision, float | None]]:
        return sorted((row for row in compared if row[1].reason in reasons), key=lambda row: -(row[2] or 0.0))

    strange = sorted((row for row in judged if row[1].abstained), key=lambda row: -(row[1].leverage or 0.0))
    return {
        "closest": shown(sorted(compared, key=lambda row: row[2] or 0.0)),
        "surest for a cheap candidate": shown(surest(_CHEAP)),
        "surest for a strong candidate": shown(surest(_STRONG)),
        "abstained, least familiar first": shown(strange),
    }


def margin_of(decision: RoutingDecision) -> float | None:
    """Return how far the number that decided lies from its threshold, 0 upwards; None if no number decided."""
    if decision.threshold is None or decision.reason not in (*_CHEAP, *_STRONG):
        return None
    if decision.gain is not None:
        return abs(decision.gain - decision.threshold)
    risk = next(one.risk for one in decision.candidates if one.candidate == decision.chosen)
    return None if risk is None else abs(risk - decision.threshold)


def shown_text(text: str) -> str:
    """Return the beginning of a text on one line, without characters that a terminal would obey."""
    line = " ".join(text[: 4 * MOST_TEXT].split())
    plain = "".join(one if one.isprintable() else "\ufffd" for one in line)
    return plain if len(plain) <= MOST_TEXT else plain[: MOST_TEXT - 3] + "..."


def _shown(
    request: LoggedRequest, decision: RoutingDecision, margin: float | None, *, with_text: bool
) -> DecisionToRead:
    return DecisionToRead(
        place=str(request.place),
        session=shown_text(request.session),
        text=shown_text(request.ask.text) if with_text else None,
        chosen=decision.chosen,
        would_choose=decision.would_choose,
        why=describe_reason(decision),
        margin=margin,
        risks={one.candidate: one.risk for one in decision.candidates},
        leverage=decision.leverage,
    )
