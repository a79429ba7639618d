"""The public names of `probes`, and what importing them loads."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

import probes
from probes.telemetry import SILENCED

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


@pytest.mark.parametrize("package", ["probes", "router", "router.client"])
def test_importing_turns_off_the_telemetry_of_what_is_imported_next(package: str) -> None:
    code = f"import {package}, os, json; print(json.dumps(dict(os.environ)))"
    asked_for = {"ORT_DISABLE_TELEMETRY": "0", "DO_NOT_TRACK": "", "PATH": os.environ["PATH"]}
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=asked_for)
    assert json.loads(result.stdout).items() >= SILENCED.items()


def test_predicting_needs_numpy_only() -> None:
    loaded = modules_after("from probes import DifficultyProbe, Beta, LinearProbe, fit_ridge, out_of_fold")
    heavy = {"torch", "transformers", "sklearn", "scipy", "pyarrow", "matplotlib", "pydantic", "safetensors"}
    assert "numpy" in loaded
    assert not heavy & loaded
