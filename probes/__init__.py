"""The science of ELLE: linear probes that read a loss estimate out of a frozen embedding.

Every name below is imported when it is first used, so that `import probes` costs next to nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from probes.bootstrap import Interval, bootstrap
    from probes.calibration import Beta, Calibrator, Isotonic, Sigmoid, VennAbers, cross_calibrate
    from probes.crossfit import OutOfFold, assign_folds, out_of_fold
    from probes.estimator import RidgeLOO
    from probes.fit import fit_ridge
    from probes.linear import Leverage, LinearProbe
    from probes.probe import DataSource, DifficultyProbe, ProbeCard, ProbePrediction
    from probes.ridge import RidgeFitter, RidgeSolution

_HOME = {
    "probes.bootstrap": ("Interval", "bootstrap"),
    "probes.calibration": ("Beta", "Calibrator", "Isotonic", "Sigmoid", "VennAbers", "cross_calibrate"),
    "probes.crossfit": ("OutOfFold", "assign_folds", "out_of_fold"),
    "probes.estimator": ("RidgeLOO",),
    "probes.fit": ("fit_ridge",),
    "probes.linear": ("Leverage", "LinearProbe"),
    "probes.probe": ("DataSource", "DifficultyProbe", "ProbeCard", "ProbePrediction"),
    "probes.ridge": ("RidgeFitter", "RidgeSolution"),
}
_MODULE_OF = {name: module for module, names in _HOME.items() for name in names}

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
