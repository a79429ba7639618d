"""Draw human and judged losses of a policy, with judges that are wrong in known ways."""

from __future__ import annotations

import numpy as np

from probes.certificates.human_grades import GradedLosses


def _right(human, share, rng):
    """Return verdicts that are right with this probability, and otherwise one step away."""
    step = np.where(human == 0, rng.choice([-1.0, 1.0], human.shape), -human)
    return np.where(rng.random(human.shape) < share, human, human + step)


def _too_kind(human, rng):
    """Return verdicts that are 15 points too kind to the weak model: they take losses for ties, and ties for gains."""
    return np.where(rng.random(human.shape) < 0.15, np.maximum(human - 1, -1), _right(human, 0.95, rng))


JUDGES = {
    "right 9 in 10": lambda human, rng: _right(human, 0.9, rng),
    "too kind": _too_kind,
    "too strict": lambda human, rng: np.where(rng.random(human.shape) < 0.15, 1.0, human),
    "perfect": lambda human, rng: human.copy(),
    "useless": lambda human, rng: rng.choice([-1.0, 0.0, 1.0], human.shape),
    "always kind": lambda human, rng: np.full(human.shape, -1.0),
    "contrary": lambda human, rng: -human,
    "graded": lambda human, rng: np.clip(0.6 * human + rng.normal(0, 0.2, human.shape), -1, 1),
    "blind to rare losses": lambda human, rng: np.minimum(human, 0.0),
}


def graded_losses(judge, draws, grades, judged_only, human=(0.15, 0.15), seed=0):
    """Return losses of `draws` independent experiments, one a row; human grades come first.

    human: the probabilities that people see a loss of 1 and a gain of 1.
    """
    rng = np.random.default_rng(seed)
    worse, better = human
    shape = (draws, grades + judged_only)
    losses = rng.choice([1.0, -1.0, 0.0], shape, p=[worse, better, 1 - worse - better])
    judged = JUDGES[judge](losses, rng)
    losses[:, grades:] = np.nan
    return GradedLosses(losses, judged)
