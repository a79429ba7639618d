"""Compute routing losses of candidate models from scores, a judge's preferences, or token probabilities."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from probes.errors import DataError
from probes.losses.pairs import LossPairs

Preference = Literal["a", "b", "tie"]


def losses_from_scores(scores: ArrayLike) -> NDArray[np.float64]:
    """Return 1 - score, in the shape of scores; raise DataError naming the first that is not in [0, 1]."""
    array = np.asarray(scores, dtype=np.float64)
    bad = ~((array >= 0.0) & (array <= 1.0))
    if bad.any():
        place = tuple(int(axis[0]) for axis in np.nonzero(np.atleast_1d(bad)))
        raise DataError(
            f"scores must lie in [0, 1], got {np.atleast_1d(array)[place]} at {place}; "
            "rescale them, or leave unanswered prompts out"
        )
    return 1.0 - array


def judge_losses(verdicts: Sequence[Preference], *, tie: float = 0.5) -> NDArray[np.float64]:
    """Return losses (n, 2) of models a and b from a judge's preferences: winner 0, loser 1, or `tie` for both."""
    if not 0.0 <= tie <= 1.0:
        raise DataError(f"the loss of a tie must lie in [0, 1], got {tie}")
    table = {"a": (0.0, 1.0), "b": (1.0, 0.0), "tie": (tie, tie)}
    for row, verdict in enumerate(verdicts):
        if verdict not in table:
            raise DataError(f"verdict of row {row} must be 'a', 'b' or 'tie', got {verdict!r}")
    return np.array([table[verdict] for verdict in verdicts], dtype=np.float64).reshape(-1, 2)


def token_losses(logprobs: Sequence[Sequence[float]]) -> NDArray[np.float64]:
    """Return nats per token (n,) of answers: minus the mean of each answer's token log probabilities (<= 0)."""
    losses = np.empty(len(logprobs))
    for row, answer in enumerate(logprobs):
        values = np.asarray(answer, dtype=np.float64)
        if values.ndim != 1 or not values.size:
            raise DataError(f"answer of row {row} must have at least one token log probability, got none")
        # Servers round: a value slightly above zero still means certainty.
        if not (np.isfinite(values) & (values <= 1e-6)).all():
            raise DataError(f"log probabilities of row {row} must be finite and at most 0, got {values.max()}")
        losses[row] = -values.mean()
    return losses


def completion_token_loss(completion: Mapping[str, Any]) -> float:
    """Return nats per token of an OpenAI-style chat completion that was requested with `logprobs: true`."""
    try:
        content = completion["choices"][0]["logprobs"]["content"]
        values = [float(token["logprob"]) for token in content]
    except (KeyError, IndexError, TypeError) as error:
        raise DataError(
            "the completion must hold choices[0].logprobs.content[*].logprob; ask the server with logprobs=true"
        ) from error
    return float(token_losses([values])[0])


def routing_pairs(
    embeddings: ArrayLike,
    losses: ArrayLike,
    *,
    model: str,
    kind: str = "1 - score",
    ids: Sequence[str] | None = None,
) -> LossPairs:
    """Return prompt embeddings (n, d) with one candidate model's losses (n,) as `LossPairs`."""
    return LossPairs(
        np.asarray(embeddings),
        np.asarray(losses),
        None if ids is None else tuple(ids),
        {"objective": "routing", "loss": kind, "model": model},
    )
