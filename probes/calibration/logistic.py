"""Fit logistic regression with soft targets and slopes >= 0, which Platt scaling and beta calibration need."""

from __future__ import annotations

import numpy as np

from probes._checks import Float64


def platt_targets(y: Float64, w: Float64) -> Float64:
    """Return losses y (n,) with weights w (n,), moved away from 0 and 1 by Platt's prior correction."""
    positive, negative = float(w @ y), float(w @ (1.0 - y))
    return y * ((positive + 1.0) / (positive + 2.0)) + (1.0 - y) / (negative + 2.0)


def logistic(logit: Float64) -> Float64:
    """Return 1 / (1 + exp(-logit)) elementwise, without overflow."""
    # exp of a number that is never positive cannot overflow.
    decay = np.exp(-np.abs(logit))
    return np.asarray(np.where(logit >= 0, 1.0, decay) / (1.0 + decay))


def fit_increasing_logistic(F: Float64, t: Float64, w: Float64) -> Float64:
    """Return (slopes >= 0, offset), (p + 1,), of logistic regression of soft targets t (n,) on F (n, p).

    The most negative slope is set to 0 and the others are fitted again, until none is negative. For one or two slopes
    this is the constrained optimum, because the loss is convex (Kull et al. 2017, section 4).
    """
    kept = list(range(F.shape[1]))
    while True:
        beta = _logistic(F[:, kept], t, w)
        worst = int(np.argmin(beta[:-1])) if kept else -1
        if not kept or beta[worst] >= 0.0:
            slopes = np.zeros(F.shape[1] + 1)
            slopes[[*kept, -1]] = beta
            return slopes
        kept.pop(worst)


def _logistic(F: Float64, t: Float64, w: Float64) -> Float64:
    """Return coefficients (p + 1,), offset last, by Newton's method with step halving on the mean cross-entropy."""
    design = np.column_stack([F, np.ones(F.shape[0])])
    share = w / w.sum()
    mean = float(share @ t)
    beta = np.zeros(design.shape[1])
    beta[-1] = np.log(mean / (1.0 - mean))
    loss = _cross_entropy(design @ beta, t, share)
    for _ in range(100):
        p = logistic(design @ beta)
        gradient = design.T @ (share * (p - t))
        hessian = (design * (share * p * (1.0 - p))[:, None]).T @ design
        # The jitter only matters if a feature does not vary; the slope of that feature then stays at 0.
        step = np.linalg.solve(hessian + 1e-12 * np.eye(beta.shape[0]), gradient)
        size = 1.0
        while (new := _cross_entropy(design @ (beta - size * step), t, share)) > loss and size > 1e-10:
            size /= 2.0
        beta, previous, loss = beta - size * step, loss, min(new, loss)
        if previous - loss <= 1e-15 * max(1.0, abs(loss)):
            break
    return beta


def _cross_entropy(logit: Float64, t: Float64, share: Float64) -> float:
    return float(share @ (np.logaddexp(0.0, logit) - t * logit))
