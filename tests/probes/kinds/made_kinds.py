"""Rows of features of a few kinds with known means, for tests of `probes.kinds`."""

from __future__ import annotations

import numpy as np

from probes.kinds.known_kinds import KnownKinds
from probes.kinds.learning import KindRows, fit_kinds

NAMES = ("greeting", "short factual question", "competition mathematics", "rewriting", "law")


def made_rows(n: int = 60, n_features: int = 20, *, apart: float = 2.4, seed: int = 0) -> KindRows:
    """Return n rows of each kind: Gaussians of one skewed shape whose means differ in the first features."""
    rng = np.random.default_rng(seed)
    shape = rng.standard_normal((n_features, n_features)) * 0.1 + np.eye(n_features)
    means = np.zeros((len(NAMES), n_features))
    means[np.arange(len(NAMES)), np.arange(len(NAMES))] = apart
    kind = np.repeat(np.arange(len(NAMES)), n)
    features = means[kind] + rng.standard_normal((len(kind), n_features)) @ shape * 0.8 + 5.0
    order = rng.permutation(len(kind))
    names = [NAMES[kind[row]] for row in order]
    return KindRows(features[order].astype(np.float32), names, [f"text {row}" for row in order])


def made_kinds(n_features: int = 8, *, assumed: str = "greeting") -> KnownKinds:
    """Return five kinds, learned from rows of this many features; one of them is assumed."""
    found = fit_kinds(made_rows(n_features=n_features), {assumed: True})
    assert found is not None
    return found
