"""Fit, calibrate, certify and store linear probes, which predict a model's loss from a frozen embedding (ELLE).

Every name below is imported when it is first used, so that `import probes` costs next to nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from probes import telemetry

if TYPE_CHECKING:
    from probes.calibration.base import Calibrator
    from probes.calibration.beta import Beta
    from probes.calibration.choice import cross_calibrate
    from probes.calibration.isotonic import Isotonic
    from probes.calibration.sigmoid import Sigmoid
    from probes.calibration.venn_abers import VennAbers
    from probes.measures.bootstrap import Interval, bootstrap
    from probes.probe import DataSource, DifficultyProbe, ProbeCard, ProbePrediction
    from probes.regression.crossfit import OutOfFold, assign_folds, out_of_fold
    from probes.regression.estimator import RidgeLOO
    from probes.regression.fit import fit_ridge
    from probes.regression.linear import Leverage, LinearProbe
    from probes.regression.ridge import RidgeFitter
    from probes.regression.solution import RidgeSolution

# Nothing may leave the machine, and ONNX Runtime begins to send when it is imported; so this comes first.
telemetry.turn_off()

_NAMES_OF = {
    "probes.measures.bootstrap": ("Interval", "bootstrap"),
    "probes.calibration.base": ("Calibrator",),
    "probes.calibration.beta": ("Beta",),
    "probes.calibration.choice": ("cross_calibrate",),
    "probes.calibration.isotonic": ("Isotonic",),
    "probes.calibration.sigmoid": ("Sigmoid",),
    "probes.calibration.venn_abers": ("VennAbers",),
    "probes.regression.crossfit": ("OutOfFold", "assign_folds", "out_of_fold"),
    "probes.regression.estimator": ("RidgeLOO",),
    "probes.regression.fit": ("fit_ridge",),
    "probes.regression.linear": ("Leverage", "LinearProbe"),
    "probes.probe": ("DataSource", "DifficultyProbe", "ProbeCard", "ProbePrediction"),
    "probes.regression.ridge": ("RidgeFitter",),
    "probes.regression.solution": ("RidgeSolution",),
}
_MODULE_OF = {name: module for module, names in _NAMES_OF.items() for name in names}

__all__ = [
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
]


def __getattr__(name: str) -> object:
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'probes' has no attribute {name!r}")
    value = getattr(import_module(_MODULE_OF[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
