"""Group rows that have the same label, such as the same text or task: number the groups, or list the rows of each."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from typing import TypeVar

import numpy as np

from probes._checks import Indices

Label = TypeVar("Label", bound=Hashable)


def group_numbers(labels: Iterable[Hashable]) -> Indices:
    """Return a number for each of n labels, (n,); equal labels get equal numbers, in the order of first occurrence.

    `group_numbers(["a", "b", "a"])` is `[0, 1, 0]`.
    """
    numbers: dict[Hashable, int] = {}
    return np.array([numbers.setdefault(label, len(numbers)) for label in labels], dtype=np.int64)


def rows_by_label(labels: Iterable[Label]) -> dict[Label, list[int]]:
    """Return the rows of each label, in order: `{"a": [0, 2], "b": [1]}` for the labels a, b and a."""
    rows: dict[Label, list[int]] = {}
    for row, label in enumerate(labels):
        rows.setdefault(label, []).append(row)
    return rows
