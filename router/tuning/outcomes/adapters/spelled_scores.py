"""Read scores that people spell out in spreadsheets: thumbs, percentages, and numbers with a label behind them."""

from __future__ import annotations

import re
from typing import Any

from router.tuning.outcomes.records import number_of

#: Thumbs, whose meaning everybody knows: quality by the text in small letters, without marks of skin colour.
_THUMBS = {
    "👍": 1.0, "👎": 0.0, "thumbs up": 1.0, "thumbs down": 0.0, "thumb up": 1.0, "thumb down": 0.0, "thumbsup": 1.0,
    "thumbsdown": 0.0, ":thumbsup:": 1.0, ":thumbsdown:": 0.0,
}  # fmt: skip
_SKIN = re.compile("[\U0001f3fb-\U0001f3ff\ufe0f]")

#: A grade of a scale with its label: `4 - agree`, `5 (very good)`, `1 = never`, `2: poor`.
_LABELLED = re.compile(r"\s*(?P<number>[+-]?\d{1,9}([.,]\d{1,9})?)\s*[-\u2013\u2014:=(]\s*[^\d\s].*", re.DOTALL)

#: A grade with the best one behind it: `4/5`, `4 / 5`, `4 of 5`.
_OF_BEST = re.compile(r"\s*(?P<number>\d{1,9}([.,]\d{1,9})?)\s*(/|of)\s*(?P<best>\d{1,9})\s*", re.IGNORECASE)

#: What `--scale` looks like: `1..5`, or `5..1` if less is better.
_SCALE = re.compile(r"\s*(?P<worst>[+-]?\d{1,9}([.,]\d{1,9})?)\s*\.\.\s*(?P<best>[+-]?\d{1,9}([.,]\d{1,9})?)\s*")


def thumb_of(value: Any) -> float | None:
    """Return 1 for a thumb up and 0 for a thumb down, also in words; None for anything else."""
    if not isinstance(value, str) or len(value) > 40:
        return None
    return _THUMBS.get(_SKIN.sub("", value).strip().lower().replace("_", " ").replace("-", " "))


def percentage_of(value: Any) -> float | None:
    """Return the number before a percent sign, such as 85 for `85 %`; None for a text without the sign."""
    text = value.strip() if isinstance(value, str) else ""
    return number_of(text[:-1]) if text.endswith("%") else None


def grade_of(value: Any, best: float) -> float | None:
    """Return the number of a grade that has a label or the best grade behind it, as in `4 - agree` or `4/5`.

    best: the best grade of the scale; `4/10` is no grade of a scale that ends at 5. None for any other text.
    """
    if not isinstance(value, str):
        return None
    if (match := _OF_BEST.fullmatch(value)) is not None:
        return number_of(match["number"]) if number_of(match["best"]) == best else None
    match = _LABELLED.fullmatch(value)
    return None if match is None else number_of(match["number"])


def parse_scale(text: str) -> tuple[float, float] | None:
    """Return the worst and the best grade of a scale that is written as in `1..5`; None for any other text."""
    match = _SCALE.fullmatch(text)
    if match is None:
        return None
    worst, best = number_of(match["worst"]), number_of(match["best"])
    return None if worst is None or best is None else (worst, best)
