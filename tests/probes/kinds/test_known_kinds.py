"""Known kinds: distances, shares and order are those of the formula, and contradicting parts are refused."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from probes.errors import DataError, DimensionError
from probes.kinds.known_kinds import MAX_KINDS, N_NEAREST, KnownKinds, kind_name_fault
from tests.probes.kinds.made_kinds import NAMES, made_kinds, made_rows


def test_shares_and_novelty_are_those_of_the_formula() -> None:
    known = replace(made_kinds(20), temperature=1.7)
    centre = known.means.mean(axis=0)
    centres = (known.means - centre).astype(np.float64) @ known.projection.T.astype(np.float64)
    for x in made_rows(5).features:
        z = known.projection.astype(np.float64) @ (x - centre)
        squared = ((z - centres) ** 2).sum(axis=1)
        distances, broad = known.distances(x)
        assert distances == pytest.approx(squared, rel=1e-4, abs=1e-3)
        assert broad == pytest.approx((z**2 / (1 + centres.var(axis=0))).sum(), rel=1e-4)
        share = np.exp(-squared / (2 * 1.7))
        assert known.shares(x) == pytest.approx(share / share.sum(), abs=1e-4)
        found = known.nearest(x)
        assert found.known == (squared.min() - broad <= known.limit)
        assert [kind.name for kind in found.nearest] == [known.names[k] for k in np.argsort(squared)[:N_NEAREST]]


def test_each_mean_is_of_its_own_kind_and_says_what_is_assumed() -> None:
    known = made_kinds()
    for name, mean in zip(known.names, known.means, strict=True):
        found = known.nearest(mean)
        assert found.known
        assert (found.nearest[0].name, found.nearest[0].assumed) == (name, name == "greeting")
        assert 0.5 < found.nearest[0].share <= 1.0
        assert sum(kind.share for kind in found.nearest) <= 1.0 + 1e-12
    assert known.names == tuple(sorted(NAMES))


def test_a_far_prompt_has_finite_shares_and_two_kinds_are_two() -> None:
    known = made_kinds()
    found = known.nearest(np.full(8, 1e6, np.float32))
    assert not found.known
    assert np.isfinite([kind.share for kind in found.nearest]).all()
    two = replace(
        known, names=known.names[:2], assumed=(False, True), means=known.means[:2], projection=known.projection[:1]
    )
    assert len(two.nearest(known.means[0]).nearest) == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"names": ("a",) * 5}, "distinct"),
        ({"names": ("a", "b", "c", "d", "e" * 121)}, "at most 120 bytes long, got 121"),
        ({"names": ("a", "b", "c", "d", "ü" * 61)}, "at most 120 bytes"),
        ({"names": ("a", "b", "c", "d", "\x1b[31m")}, "printable"),
        ({"names": ("a", "b")}, "each must say"),
        ({"names": ("a",), "assumed": (True,)}, f"2 to {MAX_KINDS} kinds"),
        ({"names": tuple(map(str, range(999))), "assumed": (True,) * 999}, "2 to 256 kinds"),
        ({"means": np.zeros((4, 8))}, "a matrix of 5 rows"),
        ({"projection": np.zeros((5, 8))}, "1 to 4 rows"),
        ({"projection": np.zeros((2, 7))}, "as many columns"),
        ({"projection": np.full((2, 8), np.inf)}, "finite"),
        ({"projection": np.full((2, 8), 3e38)}, "overflow"),
        ({"temperature": 0.0}, "temperature"),
        ({"limit": float("nan")}, "limit"),
    ],
)
def test_parts_that_contradict_each_other_are_refused(change: dict[str, object], message: str) -> None:
    with np.errstate(over="ignore", invalid="ignore"), pytest.raises(DataError, match=message):
        replace(made_kinds(), **change)  # type: ignore[arg-type]


def test_other_features_are_refused_and_ten_megabytes_of_name_cost_nothing() -> None:
    known: KnownKinds = made_kinds()
    with pytest.raises(DimensionError, match=r"shape \(8,\)"):
        known.nearest(np.zeros(9, np.float32))
    assert kind_name_fault("x" * 10_000_000) == "be at most 120 bytes long, got 10,000,000 characters"
    assert kind_name_fault("short factual question") is None
