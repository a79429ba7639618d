"""Compare what a policy would have cost with what was paid and with other ways to answer, with intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from probes.grouping import group_numbers
from probes.measures.bootstrap import Interval, resampled_sums
from router.policies.candidates.candidate import Candidate, by_any_name
from router.tuning.previewing.logged_requests import LoggedRequest
from router.tuning.previewing.prompt_caches import Bill
from router.tuning.previewing.replay import NOBODY, Replay

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]
Choices = npt.NDArray[np.int64]

#: Draws of fewer sessions than this say little about what other sessions would have cost.
LEAST_SESSIONS = 10


@dataclass(frozen=True)
class WayFigures:
    """Holds what one way to answer the log costs. Intervals are 95 %, by bootstrap over sessions.

    Attributes:
        name: of the way, such as `policy` or `always NAME`. about: what it does, in words.
        shares: share of the requests that each candidate answers, by its name.
        cost_usd: of all requests, with prompt caches; None if a price is not known.
        cached_share: share of the input tokens that are billed as cached, 0 to 1.
        n_switches: requests of sessions that another candidate answers than the one before.
        saved: share of the cost of always the strong candidate that is saved; None if a price is not known.
        saved_of_paid: share of what was paid that is saved, on the requests of which that is known; None if it is not
            known of any.
    """

    name: str
    about: str
    shares: Mapping[str, float]
    cost_usd: float | None
    cached_share: float
    n_switches: int
    saved: Interval | None
    saved_of_paid: Interval | None


@dataclass(frozen=True)
class PaidFigures:
    """Holds what the log says was paid.

    Attributes:
        n: requests of which the log says it. usd: their sum.
        policy_usd: what the policy would have cost on the same requests; None if a price is not known.
    """

    n: int
    usd: float
    policy_usd: float | None


@dataclass(frozen=True)
class Resampling:
    """Says how intervals are computed: `resamples` draws of whole sessions, from 100 upwards, with this seed."""

    resamples: int = 1000
    seed: int = 0


def keep_first(requests: Sequence[LoggedRequest], ours: Replay) -> Choices:
    """Return who answers if each session stays with the candidate that the policy chose first for it, (n,).

    Where that candidate may not answer, the policy's own choice answers this one request.
    """
    first: dict[str, int] = {}
    chosen = ours.chosen.copy()
    for row, request in enumerate(requests):
        if chosen[row] == NOBODY or not request.session:
            continue
        stayed = first.setdefault(request.session, int(chosen[row]))
        if _may_answer(ours, row, stayed):
            chosen[row] = stayed
    return chosen


def keep_one(ours: Replay, number: int) -> Choices:
    """Return who answers if one candidate answers everything that it may, (n,); elsewhere the policy's choice."""
    rows = range(len(ours.chosen))
    return np.array([number if _may_answer(ours, row, number) else ours.chosen[row] for row in rows], dtype=np.int64)


def as_logged(requests: Sequence[LoggedRequest], ours: Replay, candidates: Sequence[Candidate]) -> Choices | None:
    """Return which candidates answered in the log, (n,); None if a request was answered by somebody else."""
    numbers = {candidate.name: number for number, candidate in enumerate(candidates)}
    known = {name: numbers[candidate.name] for name, candidate in by_any_name(candidates).items()}
    chosen = [known.get(one.model, NOBODY) for one in requests]
    found = np.where(ours.answered, np.array(chosen, dtype=np.int64), NOBODY)
    return None if (found[ours.answered] == NOBODY).any() else found


def _may_answer(ours: Replay, row: int, number: int) -> bool:
    return not isinstance(one := ours.decisions[row], Exception) and one.candidates[number].eligible


@dataclass(frozen=True)
class Way:
    """One way to answer the log: its name, what it does, who answers each request (n,), and the bill."""

    name: str
    about: str
    chosen: Choices
    bill: Bill


def measure_ways(
    requests: Sequence[LoggedRequest], ways: Sequence[Way], strong: str, names: Sequence[str], resampling: Resampling
) -> tuple[tuple[WayFigures, ...], PaidFigures | None]:
    """Return the figures of each way on the same draws of sessions, and what was paid if the log says it.

    Args:
        requests: the n requests of the log.
        ways: the policy first. A request that the policy does not answer is left out of every figure.
        strong: the name of the way that savings are measured against.
        names: of the candidates, in the order of the policy.
        resampling: how intervals are computed.
    """
    answered = ways[0].chosen != NOBODY
    paid = np.array([np.nan if one.cost_usd is None else one.cost_usd for one in requests], dtype=np.float64)
    rows = answered & np.isfinite(paid)
    columns = [np.where(rows, paid, 0.0)]
    for way in ways:
        columns += [np.where(kept, way.bill.cost_usd, 0.0) for kept in (answered, rows)]
    sums = _by_session(requests, np.stack(columns, axis=1))
    draws = resampled_sums(sums, resampling.resamples, resampling.seed)
    base = draws[:, 1 + 2 * [way.name for way in ways].index(strong)]
    found = []
    for place, way in enumerate(ways):
        whole, on_paid = draws[:, 1 + 2 * place], draws[:, 2 + 2 * place]
        read = float(way.bill.input.sum())
        found.append(
            WayFigures(
                name=way.name,
                about=way.about,
                shares={one: float((way.chosen[answered] == j).mean()) for j, one in enumerate(names)},
                cost_usd=float(whole[0]) if np.isfinite(whole[0]) else None,
                cached_share=float(way.bill.cached.sum()) / read if read else 0.0,
                n_switches=way.bill.n_switches,
                saved=_saving(whole, base, len(sums)),
                saved_of_paid=_saving(on_paid, draws[:, 0], int(np.count_nonzero(sums[:, 0]))),
            )
        )
    if not rows.any():
        return tuple(found), None
    cost = float(draws[0, 2])
    return tuple(found), PaidFigures(int(rows.sum()), float(draws[0, 0]), cost if np.isfinite(cost) else None)


def _by_session(requests: Sequence[LoggedRequest], values: FloatArray) -> FloatArray:
    """Return the sums of the columns (n, c) over each session, (sessions, c); a lone request is a session."""
    sessions = group_numbers(one.session or row for row, one in enumerate(requests))
    sums = np.zeros((int(sessions.max(initial=-1)) + 1, values.shape[1]))
    np.add.at(sums, sessions, values)
    return sums


def _saving(cost: FloatArray, base: FloatArray, n_sessions: int) -> Interval | None:
    """Return the share of `base` that `cost` saves, from the log and its draws, (1 + resamples,); None if unknown.

    n_sessions: how many sessions it rests on.
    """
    if not (np.isfinite(cost).all() and np.isfinite(base).all() and base[0] > 0):
        return None
    # A draw may hold only sessions that cost nothing; it says nothing about a share. Rounded, because two sums of the
    # same costs in another order differ in the last digits.
    saved = np.round(1.0 - cost[base > 0] / base[base > 0], 12) + 0.0
    if n_sessions < LEAST_SESSIONS or len(saved) < 2:
        return Interval.unknown(float(saved[0]))
    return Interval.of_draws(saved)
