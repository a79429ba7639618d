"""The steps of `elle canary`: begin, feed, show and end a canary that is kept in a file."""

from __future__ import annotations

import secrets
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from router.errors import ConfigError
from router.feedback.weighing import graded_losses
from router.quoting import quoted
from router.rollout.canary import Canary, CanaryEvent, CanaryPlan
from router.rollout.canary_file import CanaryFile, locked, read_canary, require_canary
from router.rollout.ledger_evidence import take_answers, take_labels
from router.times import utc_text

if TYPE_CHECKING:
    from rich.console import Console

    from router.ledger.reader import LoggedDecision
    from router.tuning.outcomes.feature_cache import Progress

#: The shares of the steps after the first one.
_LATER = (0.25, 0.5, 1.0)


def start_canary(
    state: Path, new: str, *, author: str, reason: str = "", force: bool = False, **plan: Any
) -> CanaryFile:
    """Begin a canary and write its file.

    plan: `base`, `share` in percent, `max_loss` and `labels_per_step`, as `CanaryPlan` explains them.

    Raises ConfigError if the file is not a canary's, and if its canary is not over, unless `force` is given.
    """
    first = plan.pop("share") / 100
    steps = (first, *(share for share in _LATER if share > first))
    asked = CanaryPlan(canary_id=secrets.token_hex(8), policy=new, steps=steps, **plan)
    with locked(state):
        require_canary(state)
        if state.exists() and not force and not (before := read_canary(state)).canary.is_over:
            name = before.canary.plan.policy
            raise ConfigError(f"{state} holds a canary of {name} that is not over; stop it, or give --force.")
        # A decision of before the canary says nothing about it.
        file = CanaryFile(state, Canary(asked), read_until=time.time())
        why = reason or f"canary of {new}"
        file.note(CanaryEvent(time.time(), file.canary.status, file.canary.share, why), author)
        file.save()
    return file


def step_canary(
    state: Path,
    *,
    ledger: str,
    reference: str,
    labels: Sequence[Path],
    author: str,
    on_progress: Progress | None = None,
) -> tuple[CanaryFile, list[str]]:
    """Feed a canary with the decisions of a ledger and with labels, write its file, and note changes in the ledger.

    Return the canary, and in a sentence each which labels say nothing of its loss.

    Raises ConfigError or DataError if the canary, the ledger or the labels cannot be read.
    """
    from router.ledger.opening import open_ledger, opened_reader
    from router.ledger.settings import LedgerSettings

    losses = _losses(labels)
    settings = LedgerSettings(ledger)
    with locked(state):
        changes: list[CanaryEvent] = []
        file = read_canary(state, on_change=changes.append)
        if file.canary.is_over:
            return file, []
        began = float(file.trail[0]["at"]) if file.trail else 0.0
        with opened_reader(settings) as reader:
            plan, names, graded = file.canary.plan, set[str](), set[str]()

            def note(one: LoggedDecision) -> None:
                if one.values["policy"] == plan.policy:
                    names.update(candidate.candidate for candidate in one.candidates)
                    if one.decision_id in losses or graded_losses(one):
                        graded.add(one.decision_id)

            decisions = _decisions(reader, began, on_progress, note)
            n_new = take_labels(file, decisions, losses, reference=reference)
            if names and reference not in names:
                known = ", ".join(sorted(names))
                raise ConfigError(f"--reference must be one of the candidates {known}, got {quoted(reference)}.")
            take_answers(file, reader.arrivals((plan.policy, plan.base), began, file.read_until))
        if not n_new and not changes:
            file.canary.pause("no new labels")
        _save(file, changes, author)
        if changes:
            writer = open_ledger(settings)
            for event in changes:
                detail = {"status": event.status.value, "share": event.share, "why": event.why}
                writer.note("canary", {"policy": file.canary.plan.policy, **detail}, actor=author)
            writer.close()
    said = _left_out(plan.policy, reference, sorted(losses.keys() - graded), graded - file.labelled)
    if began > time.time():
        said.append(
            f"The canary began at {utc_text(began, ' ')}, which the clock of this machine has not reached, and no "
            "decision of before then counts. Set the clocks right, and begin it again with --force."
        )
    return file, said


def _left_out(policy: str, reference: str, strange: Sequence[str], halves: Collection[str]) -> list[str]:
    """Say which labels say nothing of the loss of a canary: those of other decisions, and those of one answer only."""
    said = []
    if strange:
        said.append(
            f"Labels of {len(strange):,} prompt_ids are left out, such as {quoted(strange[0])}: they are no decisions "
            f"of {policy} since the canary began."
        )
    if halves:
        said.append(
            f"{len(halves):,} decisions are graded, but not for both the candidate that was chosen and {reference}, so "
            "their loss is unknown."
        )
    return said


def stop_canary(state: Path, reason: str, author: str) -> CanaryFile:
    """End a canary and write its file. Raises ConfigError if there is none."""
    with locked(state):
        file: CanaryFile
        changes: list[CanaryEvent] = []
        file = read_canary(state, on_change=changes.append)
        file.canary.stop(reason)
        _save(file, changes, author)
    return file


def _save(file: CanaryFile, changes: Sequence[CanaryEvent], author: str) -> None:
    """Write the canary's file with these changes in its trail."""
    for event in changes:
        file.note(event, author)
    file.save()


def _decisions(
    reader: Any, since: float, on_progress: Progress | None, note: Callable[[LoggedDecision], None]
) -> Iterator[LoggedDecision]:
    from router.ledger.reader import Span

    span = Span(since=since)
    total = reader.count(span)
    for number, logged in enumerate(reader.decisions(span)):
        if on_progress is not None:
            on_progress(number + 1, total)
        note(logged)
        yield logged


def _losses(labels: Sequence[Path]) -> dict[str, dict[str, float]]:
    """Return for each labelled decision, by its id, the loss of each candidate that was graded."""
    from router.tuning.outcomes.datasets import read_outcomes

    found: dict[str, dict[str, float]] = defaultdict(dict)
    if labels:
        outcomes = read_outcomes(*labels)
        for row, column in np.argwhere(np.isfinite(outcomes.scores)).tolist():
            found[outcomes.ids[row]][outcomes.models[column]] = 1 - float(outcomes.scores[row, column])
    return dict(found)


def canary_to_dict(file: CanaryFile) -> dict[str, Any]:
    """Return what `elle canary status --json` prints."""
    return {
        **file.canary.figures(),
        "mean_loss_between": list(file.canary.evidence.loss_interval()),
        "trail": file.trail,
    }


def print_canary(file: CanaryFile, console: Console) -> None:
    """Print a canary, its evidence and its audit trail."""
    from rich.table import Table

    found = canary_to_dict(file)
    console.print(
        f"{found['policy']} in place of {found['base']}: {found['status']}, {100 * found['share']:g} % of the requests."
    )
    low, high = found["mean_loss_between"]
    limit = f"at most {found['max_loss']:g} is acceptable"
    if found["labels"]:
        told = f"{found['labels']:,} labels: the mean loss lies between {low:.3f} and {high:.3f} (98 % sure); {limit}."
    else:
        told = f"There is no label yet, so nothing is known of the mean loss; {limit}."
    console.print(f"{told} {found['requests']:,} answers have ended.")
    table = Table("when", "state", "share", "why", "who")
    for event in file.trail:
        table.add_row(
            utc_text(event["at"], " "), event["status"], f"{100 * event['share']:g} %", event["why"], event["author"]
        )
    console.print(table)
