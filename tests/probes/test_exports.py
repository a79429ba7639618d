"""The public face of `probes`, and what importing it costs."""

from __future__ import annotations

import subprocess
import sys

import pytest

import probes

PUBLIC = {
    "Beta",
    "Calibrator",
    "DataSource",
    "DifficultyProbe",
    "Interval",
    "Isotonic",
    "Leverage",
    "LinearProbe",
    "OutOfFold",
    "ProbeCard",
    "ProbePrediction",
    "RidgeFitter",
    "RidgeLOO",
    "RidgeSolution",
    "Sigmoid",
    "VennAbers",
    "assign_folds",
    "bootstrap",
    "cross_calibrate",
    "fit_ridge",
    "out_of_fold",
}


def test_the_public_names_are_these_and_each_can_be_had() -> None:
    assert set(probes.__all__) == PUBLIC
    assert all(getattr(probes, name) is not None for name in PUBLIC)
    assert set(dir(probes)) >= PUBLIC
    with pytest.raises(AttributeError, match="no attribute 'Rigde'"):
        probes.Rigde  # type: ignore[attr-defined] # noqa: B018


def modules_after(code: str) -> set[str]:
    script = f"import sys; {code}; print('\\n'.join(m.split('.')[0] for m in sys.modules))"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(result.stdout.split())


def test_importing_probes_loads_nothing_but_itself() -> None:
    assert not {"numpy", "torch", "sklearn", "scipy", "pydantic", "safetensors"} & modules_after("import probes")


def test_predicting_needs_numpy_only() -> None:
    loaded = modules_after("from probes import DifficultyProbe, Beta, LinearProbe, fit_ridge, out_of_fold")
    heavy = {"torch", "transformers", "sklearn", "scipy", "pyarrow", "matplotlib", "pydantic", "safetensors"}
    assert "numpy" in loaded
    assert not heavy & loaded
