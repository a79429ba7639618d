"""Learning kinds: means and spread are right, what is left out is left out, and odd rows are refused or ignored."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from probes.errors import DataError
from probes.kinds.learning import MAX_ROWS, MIN_ROWS, KindRows, discriminants, fit_kinds, leave_out
from tests.probes.kinds.made_kinds import NAMES, made_rows


def numbered(rows: KindRows) -> np.ndarray:
    return np.array([sorted(NAMES).index(name) for name in rows.kinds])


def test_the_projection_makes_the_spread_within_kinds_the_identity() -> None:
    rows = made_rows(2000)
    kind = numbered(rows)
    means, projection = discriminants(rows.features, kind)
    assert projection.shape == (4, 20)
    assert np.allclose(means[2], rows.features[kind == 2].mean(axis=0), atol=1e-4)
    within = (rows.features - means[kind]) @ projection.T
    assert np.allclose(np.cov(within.T), np.eye(4), atol=0.02)


def test_left_out_rows_are_told_apart_as_well_as_gaussians_allow() -> None:
    rows = made_rows(100)
    _, used, kind = rows.usable()
    left_out = leave_out(rows.features[used], kind, tuple(sorted(NAMES)), [rows.units[row] for row in used])
    assert left_out.judged.all()
    right = left_out.distances.argmin(axis=1) == left_out.kind
    assert right.mean() > 0.85
    # Gaussians of one shape need no other temperature, and their shares are as often right as they say.
    confident = left_out.shares(1.0).max(axis=1)
    assert confident.mean() == pytest.approx(right.mean(), abs=0.04)
    assert left_out.log_loss(1.0) < min(left_out.log_loss(0.25), left_out.log_loss(4.0))


def test_a_unit_that_is_left_out_teaches_nothing_about_itself() -> None:
    rows = made_rows(40)
    whole = [name if name == "law" else unit for name, unit in zip(rows.kinds, rows.units, strict=True)]
    left_out = leave_out(rows.features, numbered(rows), tuple(sorted(NAMES)), whole)
    law = sorted(NAMES).index("law")
    own = np.isinf(left_out.distances[left_out.kind == law, law])
    assert own.all()
    assert not left_out.judged[left_out.kind == law].any()
    assert left_out.judged[left_out.kind != law].all()


def test_limit_and_temperature_hold_for_new_rows_and_other_kinds_are_far() -> None:
    known = fit_kinds(made_rows(150))
    assert known is not None
    new = made_rows(150, seed=0)
    inside = [known.nearest(row).known for row in new.features]
    assert 0.9 <= np.mean(inside) <= 0.99
    assert 0.5 <= known.temperature <= 2.0
    # A kind whose mean lies far away on the other side is of none of the known kinds.
    far = new.features - 8.0 * (known.means[0] - known.means.mean(axis=0))
    assert np.mean([known.nearest(row).known for row in far]) < 0.2


def test_kinds_need_rows_of_different_texts_and_names_that_can_be_shown() -> None:
    rows = made_rows(MIN_ROWS)
    few = [name if name in NAMES[:2] else f"{name} {row}" for row, name in enumerate(rows.kinds)]
    found = fit_kinds(replace(rows, kinds=few))
    assert found is not None
    assert found.names == tuple(sorted(NAMES[:2]))
    for odd in ("", " ", "x" * 200, "two\nlines", "half \ud800"):
        kinds = [odd if name == NAMES[0] else name for name in few]
        assert fit_kinds(replace(rows, kinds=kinds)) is None
    same = ["one text" if name == NAMES[0] else unit for name, unit in zip(few, rows.units, strict=True)]
    assert fit_kinds(replace(rows, kinds=few, units=same)) is None
    assert fit_kinds(KindRows(np.zeros((0, 3), np.float32), [], [])) is None


def test_of_many_rows_some_are_used_and_the_order_of_the_others_does_not_matter() -> None:
    rows = made_rows(3 * MAX_ROWS)
    names, used, kind = rows.usable()
    assert np.bincount(kind).tolist() == [MAX_ROWS] * len(names)
    assert len(set(used.tolist())) == len(used)


def test_more_features_than_rows_and_features_that_never_vary_are_no_obstacle() -> None:
    rows = made_rows(12, n_features=150)
    features = rows.features.copy()
    features[:, 7] = 3.0
    found = fit_kinds(replace(rows, features=features))
    assert found is not None
    assert np.array_equal(found.projection[:, 7], np.zeros(4))
    assert np.isfinite(found.shares(features[0])).all()


def test_features_that_cannot_be_used_are_refused() -> None:
    rows = made_rows(20)
    bad = rows.features.copy()
    bad[3, 4] = np.nan
    with pytest.raises(DataError, match="column 4"):
        fit_kinds(replace(rows, features=bad))
    with pytest.raises(DataError, match="must differ in their features"):
        fit_kinds(replace(rows, features=np.ones_like(bad)))
