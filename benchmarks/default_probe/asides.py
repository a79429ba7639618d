"""Draw asides, which are thanks, flattery, signatures, neutral sentences and pleas, and requests to tell them from.

The folder `asides` has the sentences, which are ours. A line is a language, a sort and a pattern, in which `{a|b}`
stands for one of the alternatives. Nothing that a figure counts is among them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

_FOLDER = Path(__file__).parent / "asides"
_CHOICE = re.compile(r"\{([^{}]*)\}")


@dataclass(frozen=True)
class Pattern:
    """A pattern of sentences in a language. sort: of the aside, for example "flattery"; "" for a request."""

    language: str
    sort: str
    text: str

    def draw(self, rng: np.random.Generator) -> str:
        """Return one sentence of the pattern, drawn at random."""
        text = self.text
        while found := _CHOICE.search(text):
            options = found[1].split("|")
            text = text[: found.start()] + options[int(rng.integers(len(options)))] + text[found.end() :]
        return text.replace("\\n", "\n").strip()


def aside_patterns() -> list[Pattern]:
    """Return the patterns of asides."""
    lines = "".join((_FOLDER / name).read_text("utf-8") for name in ("english.txt", "other_languages.txt"))
    return [Pattern(*line.split("|", 2)) for line in lines.splitlines()]


def request_patterns() -> list[Pattern]:
    """Return sentences that ask for something, such as "Make it rhyme.", which the gate must keep."""
    lines = (_FOLDER / "requests.txt").read_text("utf-8").splitlines()
    return [Pattern(language, "", text) for language, text in (line.split("|", 1) for line in lines)]
