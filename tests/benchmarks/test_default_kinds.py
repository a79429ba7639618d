"""The kinds of the default probe: their names, which are assumed, and how they are judged on rows left out."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.default_probe.anchors import read_anchors
from benchmarks.default_probe.fit import TrainingSet
from benchmarks.default_probe.intervals import mean_over, share_of
from benchmarks.default_probe.kind_names import kind_name
from benchmarks.default_probe.kinds import assumed_kinds, kind_figures, kind_rows
from benchmarks.default_probe.sources import TierRows
from probes.artifacts import store
from router.deciding.pipeline import Router
from router.policies.loading import DEFAULTS
from router.values import RouteQuery

KINDS, N = 24, 40


def made_rows() -> tuple[TierRows, TrainingSet]:
    """Return rows of 24 kinds of four groups each, and their features: a mean of the kind, of the group, and noise."""
    rng = np.random.default_rng(0)
    kind = np.repeat(np.arange(KINDS), N)
    group = np.char.add(np.char.add(kind.astype(str), "|"), (np.arange(len(kind)) % 4).astype(str))
    names = np.char.add(np.where(kind < 6, "puzzle: ", "request "), kind.astype(str))
    features = (3 * rng.standard_normal((KINDS, 30)))[kind] + rng.standard_normal((len(kind), 30))
    losses = np.full((len(kind), 3), 0.5)
    texts = tuple(f"text {i}" for i in range(len(kind)))
    rows = TierRows(texts, names, names, group, losses, (), {})
    none = np.zeros(0, np.int64)
    data = TrainingSet(
        features.astype(np.float32), losses, np.ones(len(kind)), np.zeros((0, 30), np.float32), none, names, group
    )
    return rows, data


def test_kinds_that_differ_are_recognised_and_kinds_left_out_whole_are_none_of_the_known() -> None:
    rows, data = made_rows()
    figures = kind_figures(rows, None, data)
    assert (figures["n_kinds"], figures["n_assumed"]) == (KINDS, 0)
    assert (figures["puzzles"]["n_kinds"], figures["no_puzzles"]["n_kinds"]) == (6, 18)
    assert figures["all"]["top_1"]["mean"] > 0.95
    assert figures["all"]["said_to_be_known"]["mean"] == pytest.approx(0.95, abs=0.02)
    left_out = figures["kinds_left_out_whole"]
    assert left_out["none_known"]["mean"] > 0.8
    assert left_out["entropy_bits"]["n"] == KINDS


def test_a_kind_of_several_groups_is_judged_on_whole_groups() -> None:
    rows, data = made_rows()
    assert {unit.split()[0] for unit in map(str, kind_rows(rows, None, data).units)} == {"group"}


def test_kinds_of_anchors_are_assumed_unless_the_public_files_have_them() -> None:
    rows, _ = made_rows()
    anchors = read_anchors()
    assert set(assumed_kinds(rows, anchors).values()) == {True}
    shipped = store.load(DEFAULTS / "tiers").kinds
    assert shipped is not None
    assumed = {name for name, flag in zip(shipped.names, shipped.assumed, strict=True) if flag}
    assert assumed <= set(anchors.kind)
    assert "greeting or small talk" in assumed
    assert "short factual question" not in assumed
    assert not [name for name in shipped.names if "_" in name]


def test_names_of_kinds() -> None:
    assert kind_name("bbh", "bbh/logical_deduction_five_objects") == "order of things to deduce"
    assert kind_name("reasoning_gym", "number_sorting") == "numbers to filter or sort"
    assert kind_name("reasoning_gym", "some_new_task") == "puzzle: some new task"
    assert kind_name("mmlu", "college_physics") == "physics and engineering exam"


def test_each_unit_counts_once_and_shares_have_their_interval() -> None:
    found = mean_over(np.array([0, 0, 0, 1]), np.array([1.0, 1.0, 1.0, 0.0]))
    assert (found["n"], found["mean"], found["low"], found["high"]) == (2, 0.5, 0.0, 1.0)
    share = share_of(np.array([True] * 9 + [False]))
    # Wilson (1927) for 9 of 10.
    assert (share["low"], share["high"]) == pytest.approx((0.596, 0.982), abs=1e-3)


@pytest.mark.usefixtures("_real_encoder")
@pytest.mark.parametrize(
    ("prompt", "kind"),
    [
        ("Good morning! Did you sleep well?", "greeting or small talk"),
        ("What is 17 plus 25?", "small arithmetic"),
        ("Which river flows through Paris?", "short factual question"),
        ("Translate into French: The shop opens at nine.", "sentence to translate"),
        ("How do I clean a wooden table?", "everyday advice"),
        ("Prove that every finite group of prime order is cyclic.", "proof or functional equation"),
    ],
)
def test_the_default_names_the_kind_of_ordinary_prompts(router: Router, prompt: str, kind: str) -> None:
    found = router.decide(RouteQuery.from_prompt(prompt)).kinds
    assert found is not None
    assert found.known
    assert found.nearest[0].name == kind
