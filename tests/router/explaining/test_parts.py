"""The parts of a decision: they add up to losses, risks and gain, and follow from the record alone."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from probes.tasks.offsets import TaskOffsets
from router.deciding.pipeline import Router
from router.errors import InvalidRequestError
from router.explaining.parts import ALL_KINDS, ALONE, TASK, WITHIN, Explanation, compared, explain
from router.policies.loading import ServedPolicy, load_policies
from router.values import Overrides, RouteQuery
from tests.fakes import FakeEncoder, fake_probe, probe_with_kinds, write_policy

NAMES = ("small", "middle", "large")


def router_of(folder: Path, *, kinds: bool = True, tasks: bool = False, **changes: object) -> Router:
    probe = probe_with_kinds(NAMES) if kinds else fake_probe(NAMES)
    if tasks:
        none = np.zeros((0, 3), np.int64)
        offsets = TaskOffsets((), np.eye(3), np.ones(3), none, none).add("mail", [[0.2, 0.1, -0.3]] * 4)
        probe = replace(probe, tasks=offsets)
    encoder = FakeEncoder()
    path = write_policy(folder, probe, names=NAMES, **changes)  # type: ignore[arg-type]
    return Router(load_policies([path]), {encoder.spec.identity: encoder})


def explanations(router: Router, n: int = 60, task: str = "", **asked: object) -> Iterator[Explanation]:
    for i in range(n):
        overrides = Overrides(**asked)  # type: ignore[arg-type]
        decision = router.decide(RouteQuery.from_prompt(f"explain {i}", overrides=overrides, task=task))
        yield explain(decision, router.policy(None))


def check_sums(found: Explanation) -> None:
    for one in found.decision.candidates:
        assert math.fsum(part.loss[one.candidate] for part in found.parts) == pytest.approx(one.raw, abs=1e-12)
        assert math.fsum(part.risk[one.candidate] for part in found.parts) == pytest.approx(one.risk, abs=1e-12)
    if found.decision.gain is not None:
        gains = [part.gain for part in found.parts]
        assert math.fsum(gains) == pytest.approx(found.decision.gain, abs=1e-12)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "asked"),
    [
        ({}, {}),
        ({"rule": {"kind": "gain", "thresholds": [0.3, 0.01]}}, {}),
        ({"abstain_above_leverage": 0.01}, {}),
        ({"abstain_above_leverage": 0.01, "abstain_within": 0.2}, {}),
        ({}, {"max_risk": 0.3}),
        ({}, {"min_gain": 0.25}),
        ({}, {"denied_candidates": ("small",)}),
        ({"rule": {"kind": "fixed", "candidate": "middle"}}, {}),
    ],
)
def test_the_parts_add_up_to_losses_risks_and_gain(
    tmp_path: Path, changes: dict[str, object], asked: dict[str, object]
) -> None:
    router = router_of(tmp_path, **changes)
    found = list(explanations(router, **asked))
    for one in found:
        check_sums(one)
        assert (one.compared is None) == (one.decision.gain is None)
    assert {one.parts[0].what for one in found} == {ALL_KINDS}
    assert {one.parts[-1].what for one in found} == {WITHIN, ALONE}


def test_the_parts_are_those_of_the_formula(tmp_path: Path) -> None:
    router = router_of(tmp_path)
    probe = router.policy(None).probe
    assert probe is not None
    assert probe.kinds is not None
    losses = probe.linear.predict(probe.kinds.means).astype(np.float64)
    for one in explanations(router, 20):
        kinds = one.decision.kinds
        assert kinds is not None
        assert list(one.parts[0].loss.values()) == pytest.approx(losses.mean(axis=0), abs=1e-5)
        named = one.parts[1:-1]
        assert [part.what for part in named] == ([kind.name for kind in kinds.nearest] if kinds.known else [])
        for part, kind in zip(named, kinds.nearest, strict=False):
            own = losses[probe.kinds.names.index(part.what)]
            assert list(part.loss.values()) == pytest.approx(kind.share * (own - losses.mean(axis=0)), abs=1e-5)
            assert (part.share, part.assumed) == (kind.share, kind.assumed)
            # A part of the loss moves every risk in its own direction.
            for name in NAMES:
                assert part.loss[name] * part.risk[name] >= 0


def test_the_compared_candidates_are_those_of_the_rule(tmp_path: Path) -> None:
    router = router_of(tmp_path, abstain_above_leverage=0.012)
    decisions = [one.decision for one in explanations(router, 100)]
    assert {decision.abstained for decision in decisions} == {True, False}
    for decision in decisions:
        pair = compared(decision)
        assert pair is not None
        assert decision.gain is not None
        assert decision.threshold is not None
        risks = {one.candidate: one.risk for one in decision.candidates}
        assert risks[pair[0]] - risks[pair[1]] == decision.gain  # type: ignore[operator]
        assert pair[0] == "small"
        selected = decision.would_choose or decision.chosen
        assert selected == pair[1 if decision.gain > decision.threshold else 0]


def test_a_task_has_a_part_of_its_own(tmp_path: Path) -> None:
    router = router_of(tmp_path, tasks=True)
    for one in explanations(router, 10, task="mail"):
        check_sums(one)
        part = next(part for part in one.parts if part.what == TASK)
        assert part.loss["small"] > 0 > part.loss["large"]
    assert not [part for one in explanations(router, 10, task="other") for part in one.parts if part.what == TASK]


def test_without_kinds_or_without_a_judgement_there_are_no_parts(tmp_path: Path) -> None:
    (tmp_path / "plain").mkdir()
    for one in explanations(router_of(tmp_path / "plain", kinds=False), 5):
        assert (one.parts, one.knows_kinds) == ((), False)
        assert one.compared is not None
    for one in explanations(router_of(tmp_path), 5, pin="middle"):
        assert (one.parts, one.knows_kinds, one.compared) == ((), True, None)


def test_a_decision_of_another_probe_is_refused(tmp_path: Path) -> None:
    router = router_of(tmp_path)
    policy: ServedPolicy = router.policy(None)
    decision = router.decide(RouteQuery.from_prompt("explain"))
    assert decision.probe is not None
    with pytest.raises(InvalidRequestError, match="made with another"):
        explain(replace(decision, probe=replace(decision.probe, digest="0" * 64)), policy)
