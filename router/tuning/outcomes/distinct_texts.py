"""Number distinct prompt texts, so that repeated prompts are split and resampled together."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt


def text_numbers(texts: Sequence[str]) -> npt.NDArray[np.int64]:
    """Return a number for each of n texts, (n,); equal texts get equal numbers, in the order of first occurrence.

    `text_numbers(["a", "b", "a"])` is `[0, 1, 0]`.
    """
    numbers: dict[str, int] = {}
    return np.array([numbers.setdefault(text, len(numbers)) for text in texts], dtype=np.int64)
