"""The steps of `elle drift`: read what was watched, or replay a ledger or labels, and say what has changed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from probes.certificates.monitor import RiskMonitor
from router.deciding.pipeline import Router
from router.decision import ArtifactRef, CandidateRisk, NearKind, NearKinds, Reason, RoutingDecision, Timings
from router.drift.block import Block
from router.drift.label_watch import LabelWatch
from router.drift.settings import DriftSettings
from router.drift.signals import SIGNALS
from router.drift.traffic_watch import TrafficWatch
from router.drift.watch import NO_PROBE, DriftWatch
from router.errors import ConfigError
from router.tuning.judging.policy_evaluation import candidate_outcomes
from router.tuning.outcomes.datasets import read_outcomes
from router.values import RouteQuery

if TYPE_CHECKING:
    from rich.console import Console

    from router.ledger.reader import LoggedDecision
    from router.tuning.outcomes.feature_cache import Progress


def watches_of_state(path: Path, settings: DriftSettings) -> Mapping[str, TrafficWatch]:
    """Return the watch of each probe in a state file that `elle serve --drift-state` wrote."""
    if not path.exists():
        raise ConfigError(f"there is no drift state {path}; give the file of `elle serve --drift-state`.")
    return DriftWatch(settings, state=path).watches


def watches_of_ledger(logged: Iterable[LoggedDecision], settings: DriftSettings) -> Mapping[str, TrafficWatch]:
    """Replay logged decisions, oldest first, and return the watch of each probe."""
    found: dict[str, TrafficWatch] = {}
    for one in logged:
        decision = decision_of(one)
        if decision.reason is not Reason.SESSION_HELD:
            watch = found.setdefault(decision.probe.digest if decision.probe else NO_PROBE, TrafficWatch(settings))
            watch.add(decision, float(one.values["at"]))
    return found


def decision_of(logged: LoggedDecision) -> RoutingDecision:
    """Return the parts of a logged decision's record that drift looks at; the others are empty."""
    values = logged.values
    kinds = values["kinds"]
    near = None
    if kinds is not None:
        near = NearKinds(tuple(NearKind(name, share) for name, share in kinds["nearest"]), kinds["known"])
    return RoutingDecision(
        decision_id=logged.decision_id,
        requested=values["requested"],
        chosen=values["chosen"],
        chosen_model="",
        reason=Reason[values["reason"]] if values["reason"] in Reason.__members__ else Reason.UNKNOWN,
        difficulty=values["difficulty"],
        candidates=tuple(
            CandidateRisk(one.candidate, "", one.raw, one.risk, one.cost, () if one.eligible else ("logged as such",))
            for one in logged.candidates
        ),
        threshold=values["threshold"],
        gain=values["gain"],
        policy=ArtifactRef(values["policy"], values["policy_version"], values["policy_digest"]),
        probe=ArtifactRef("", "", values["probe_digest"]) if values["probe_digest"] else None,
        abstained=values["abstained"],
        leverage=values["leverage"],
        timings=Timings(),
        session_id=values["session"] or "",
        input_tokens_estimate=values["input_tokens_estimate"],
        language=values["language"],
        kinds=near,
    )


def watch_labels(policy: Path, data: Sequence[Path], encoder_dir: Path | None, progress: Progress | None) -> LabelWatch:
    """Decide every prompt of files of outcomes by a policy, and feed its labels to the monitors in the files' order.

    The loss is measured against the reference of the certificate, or else against the strongest candidate. Raises
    ConfigError or DataError if the policy or the data cannot be used.
    """
    router = Router.from_files(policy, encoder_dir=encoder_dir)
    served = router.policy(None)
    outcomes = candidate_outcomes(read_outcomes(*data), served.rules.file.candidates)
    watch = LabelWatch(served.rules.file.candidates[-1].name, None)
    if served.certificate is not None:
        watch = LabelWatch.of_certificate(served.certificate)
    tasks = outcomes.tasks or ("",) * len(outcomes)
    for number, (text, task, row) in enumerate(zip(outcomes.texts, tasks, outcomes.scores, strict=True)):
        graded = {model: 1 - float(score) for model, score in zip(outcomes.models, row, strict=True)}
        decision = router.decide(RouteQuery.from_prompt(text, task=task))
        watch.add(decision, {model: loss for model, loss in graded.items() if np.isfinite(loss)})
        if progress is not None:
            progress(number + 1, len(outcomes))
    return watch


def drift_to_dict(watches: Mapping[str, TrafficWatch], labels: LabelWatch | None) -> dict[str, Any]:
    """Return what `elle drift --json` prints."""
    return {
        "traffic": [_watch_to_dict(probe, watch) for probe, watch in watches.items()],
        "labels": None if labels is None else _labels_to_dict(labels),
        "has_changed": has_changed(watches, labels),
    }


def has_changed(watches: Mapping[str, TrafficWatch], labels: LabelWatch | None) -> bool:
    """Return whether anything is shown to have changed: the traffic of any probe, its risks or a certified loss."""
    return any(watch.alarms for watch in watches.values()) or bool(labels is not None and labels.problems)


def _watch_to_dict(probe: str, watch: TrafficWatch) -> dict[str, Any]:
    last, alarmed = watch.last, {alarm.signal for alarm in watch.alarms}
    return {
        "probe": probe,
        "blocks": watch.n_blocks,
        "blocks_alarmed": watch.n_alarmed,
        "baseline": {"blocks": min(watch.n_blocks, watch.settings.baseline_blocks), "requests": watch.baseline.n},
        "last_block": None if last is None else {"requests": last.n, "started": last.started, "ended": last.ended},
        "expected_loss": None if last is None else _expected_loss(last),
        "signals": {
            signal: {
                "distance": compared.distance,
                "p_value": compared.p_value,
                "moved": list(compared.moved),
                "alarm": signal in alarmed,
            }
            for signal, compared in watch.comparisons.items()
        },
        "alarms": [str(alarm) for alarm in watch.alarms],
    }


def _expected_loss(block: Block) -> dict[str, float] | None:
    """Return the mean risk of the chosen and of the least risky candidate, which is an estimate without labels."""
    if not block.n_risks:
        return None
    return {"chosen": block.chosen_risk / block.n_risks, "least_risky": block.strongest_risk / block.n_risks}


def _labels_to_dict(labels: LabelWatch) -> dict[str, Any]:
    loss = labels.loss
    return {
        "reference": labels.reference,
        "certified_loss": None
        if loss is None
        else {
            "limit": loss.limit,
            "n": loss.n,
            "interval": list(loss.interval()),
            "p_value": loss.p_value,
            "exceeded": loss.alarmed,
            "left_out": labels.n_incomplete,
        },
        "candidates": {
            name: {
                "n": one.n,
                "mean_risk": one.risk / one.n,
                "mean_loss": one.loss / one.n,
                "brier": one.squares / one.n,
            }
            for name, one in labels.calibration.items()
        },
        "problems": labels.problems,
    }


def print_drift(watches: Mapping[str, TrafficWatch], labels: LabelWatch | None, console: Console) -> None:
    """Print what `elle drift` found as tables."""
    if not watches and labels is None:
        console.print("There is no decision to look at.")
    for probe, watch in watches.items():
        needed, n = watch.settings.baseline_blocks, watch.n_blocks
        console.print(f"Probe {probe[:12]}: {n} blocks of requests, {watch.n_alarmed} of them unlike the baseline.")
        if watch.comparisons:
            _print_comparisons(watch, console)
        else:
            console.print(f"The baseline has {min(n, needed)} of {needed} blocks; there is nothing to compare yet.")
    if labels is not None:
        for name, one in labels.calibration.items():
            means = f"mean risk {one.risk / one.n:.3f}, mean loss {one.loss / one.n:.3f}"
            console.print(f"{name}: {one.n} labels, {means}.")
        if labels.loss is not None:
            console.print(_certified_loss(labels.loss, labels))
        console.print("\n".join(labels.problems) or "The labels speak against nothing.")


def _certified_loss(loss: RiskMonitor, labels: LabelWatch) -> str:
    """Return what the labels say of the certified loss, and whether some say nothing of it."""
    low, high = loss.interval()
    said = f"Certified loss against {labels.reference}: at most {loss.limit:g}."
    if loss.n:
        said += f" By {loss.n:,} requests it lies between {low:.3f} and {high:.3f} (95 % sure)."
    if labels.n_incomplete:
        said += (
            f" {labels.n_incomplete:,} requests are left out, because not both the chosen candidate and "
            f"{labels.reference} are graded. Grade both, or the loss that is seen is too low."
        )
    return said


def _print_comparisons(watch: TrafficWatch, console: Console) -> None:
    from rich.table import Table

    table, alarmed = Table("signal", "distance", "p", "what moved most", ""), {alarm.signal for alarm in watch.alarms}
    for signal, compared in watch.comparisons.items():
        moved = ""
        if compared.moved:
            category, before, now = compared.moved
            moved = f"{category}: {before:.0%} to {now:.0%}"
        numbers = f"{compared.distance:.2f}", f"{compared.p_value:.1g}"
        table.add_row(SIGNALS[signal], *numbers, moved, "CHANGED" if signal in alarmed else "")
    console.print(table)
    if watch.last is not None and (expected := _expected_loss(watch.last)) is not None:
        console.print(
            f"Expected loss in the last block, from the risks and without labels: {expected['chosen']:.3f}; the least "
            f"risky candidate alone {expected['least_risky']:.3f}. This is true only as far as the risks still are."
        )
