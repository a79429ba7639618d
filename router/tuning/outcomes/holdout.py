"""Which prompts are left out of a fit: a share of the texts, chosen by their hash, so that every run chooses alike."""

from __future__ import annotations

import hashlib

import numpy as np
import numpy.typing as npt

from probes.errors import DataError
from router.tuning.outcomes.datasets import Outcomes


def left_out(outcomes: Outcomes, share: float, seed: int = 0) -> npt.NDArray[np.bool_]:
    """True for the prompts to leave out, (n,): about `share` of the distinct texts, 0 to 1.

    Depends on the text, `share` and `seed` only: equal texts stay together, a larger share leaves out the same and
    more, and more data changes nothing for the old. Raises DataError for a share outside [0, 1).
    """
    if not 0 <= share < 1:
        raise DataError(f"the share to hold out must be 0 or more and below 1, got {share}; 0.4 is a good choice.")
    return np.array([_position(text, seed) < share for text in outcomes.texts], dtype=np.bool_)


def _position(text: str, seed: int) -> float:
    """A place in [0, 1) that the text and the seed determine."""
    digest = hashlib.blake2b(text.encode(), digest_size=8, key=f"holdout-{seed}".encode()).digest()
    return int.from_bytes(digest) / 2**64
