"""`DifficultyProbe`: its predictions do not depend on the batch, and it refuses unusable features."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from probes.errors import DataError, DimensionError, EncoderMismatchError
from probes.probe import DifficultyProbe

MakeProbe = Callable[..., DifficultyProbe]
MakeData = Callable[..., tuple[np.ndarray, np.ndarray]]


@pytest.mark.parametrize("kind", ["isotonic", "sigmoid", "beta", "venn_abers"])
def test_a_row_is_judged_the_same_to_the_last_bit_alone_and_in_any_batch(
    kind: str, make_probe: MakeProbe, make_data: MakeData
) -> None:
    probe = make_probe(kind)
    X, _ = make_data(seed=1)
    whole = probe.predict(X[:70])
    for start, stop in ((0, 1), (3, 4), (5, 37), (69, 70)):
        part = probe.predict(X[start:stop])
        for name in ("loss", "risk", "leverage", "unfamiliar"):
            assert_array_equal(getattr(part, name), getattr(whole, name)[start:stop])
    for row in range(70):
        one = probe.predict_one(X[row])
        assert (one.loss, one.risk) == (tuple(whole.loss[row].tolist()), tuple(whole.risk[row].tolist()))
        assert one.leverage == whole.leverage[row]
        assert probe.predict_one(X[row].astype(np.float64)) == one


def test_memory_layout_and_float64_input_change_nothing(make_probe: MakeProbe, make_data: MakeData) -> None:
    probe = make_probe()
    X, _ = make_data()
    expected = probe.predict(X[:20]).risk
    assert_array_equal(probe.predict(np.asfortranarray(X[:20])).risk, expected)
    assert_array_equal(probe.predict(X[:20].astype(np.float64)).risk, expected)
    assert_array_equal(probe.predict(X[:40:2]).risk, probe.predict(X[:40]).risk[::2])


def test_risk_is_the_calibrated_loss_and_far_prompts_are_unfamiliar(make_probe: MakeProbe, make_data: MakeData) -> None:
    probe = make_probe()
    X, _ = make_data()
    found = probe.predict(X)
    for j, calibrator in enumerate(probe.calibrators):
        assert_array_equal(found.risk[:, j], calibrator.predict(found.loss[:, j].astype(np.float64)))
    assert found.unfamiliar.mean() < 0.05
    assert probe.predict(X * 100.0).unfamiliar.all()
    assert not dataclasses.replace(probe, leverage_limit=None).predict(X * 100.0).unfamiliar.any()


def test_no_prompts_give_an_empty_prediction(make_probe: MakeProbe) -> None:
    empty = make_probe().predict(np.empty((0, 8), np.float32))
    assert empty.loss.shape == empty.risk.shape == (0, 2)


def test_unusable_features_are_refused(make_probe: MakeProbe, make_data: MakeData) -> None:
    probe = make_probe()
    X = make_data()[0][:3].copy()
    with pytest.raises(DimensionError, match="features must have 8 columns; got 7"):
        probe.predict(X[:, :7])
    with pytest.raises(DataError, match="must be a matrix"):
        probe.predict(X[0])
    X[1, 2] = np.nan
    with pytest.raises(DataError, match="row 1, column 2"):
        probe.predict(X)
    for size in (1e25, 1e300):
        with pytest.raises(DataError, match="row 1 overflows float32"):
            probe.predict(np.array([np.ones(8), np.full(8, size)]))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_one_unusable_row_is_refused(dtype: type, make_probe: MakeProbe, make_data: MakeData) -> None:
    probe = make_probe()
    x = make_data()[0][0].astype(dtype)
    with pytest.raises(DimensionError, match="features must have 8 columns; got 7"):
        probe.predict_one(x[:7])
    for value in (np.nan, np.inf):
        x[2] = value
        with pytest.raises(DataError, match="row 0, column 2"):
            probe.predict_one(x)
    with pytest.raises(DataError, match="row 0 overflows float32"):
        probe.predict_one(np.full(8, 1e25, dtype))
    with pytest.raises(DataError, match="no calibration"):
        dataclasses.replace(probe, calibrators=()).predict_one(x)


def test_a_probe_without_calibration_has_no_risk(make_probe: MakeProbe, make_data: MakeData) -> None:
    bare = dataclasses.replace(make_probe(), calibrators=())
    with pytest.raises(DataError, match="no calibration"):
        bare.predict(make_data()[0])


def test_only_the_encoder_it_was_fitted_with_is_accepted(make_probe: MakeProbe) -> None:
    probe = make_probe()
    probe.check_encoder("ab" * 32)
    with pytest.raises(EncoderMismatchError, match="Load that encoder"):
        probe.check_encoder("cd" * 32)


def test_identity_changes_with_everything_that_decides_and_with_nothing_else(make_probe: MakeProbe) -> None:
    probe = make_probe()
    assert make_probe().identity == probe.identity
    assert dataclasses.replace(probe, card=dataclasses.replace(probe.card, title="x")).identity == probe.identity
    assert dataclasses.replace(probe, fitted_on=probe.fitted_on[:1]).identity == probe.identity
    others: list[dict[str, object]] = [
        {"models": ("small", "great")},
        {"leverage_limit": 0.5},
        {"encoder_identity": "cd" * 32},
        {"calibrators": probe.calibrators[::-1]},
        {"linear": dataclasses.replace(probe.linear, intercept=probe.linear.intercept + 1e-6)},
        {"leverage": dataclasses.replace(probe.leverage, floor=0.5)},
    ]
    found = {dataclasses.replace(probe, **other).identity for other in others}  # type: ignore[arg-type]
    assert len(found | {probe.identity}) == len(others) + 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"models": ("a",)}, "2 different names"),
        ({"models": ("a", "a")}, "2 different names"),
        ({"models": ("a", "")}, "2 different names"),
        ({"leverage_limit": 0.0}, "leverage_limit"),
        ({"leverage_limit": float("nan")}, "leverage_limit"),
        ({"encoder": None}, "given together"),
        ({"encoder_identity": ""}, "given together"),
    ],
)
def test_contradicting_parts_are_refused(change: dict[str, object], message: str, make_probe: MakeProbe) -> None:
    probe = make_probe()
    with pytest.raises(DataError, match=message):
        dataclasses.replace(probe, **change)  # type: ignore[arg-type]


def test_calibrators_and_leverage_must_fit_the_linear_probe(make_probe: MakeProbe) -> None:
    probe = make_probe()
    with pytest.raises(DataError, match="one per model, 2, or none; got 1"):
        dataclasses.replace(probe, calibrators=probe.calibrators[:1])
    narrow = make_probe(n_features=7)
    with pytest.raises(DimensionError, match="got 8 and 7"):
        dataclasses.replace(probe, leverage=narrow.leverage)
