"""Say by the letters of a sentence whether it is an aside. The gate is a file of the package."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load, save

from probes.errors import EncoderError

#: The gate that is shipped.
GATE_FILE = Path(__file__).with_name("gate.safetensors")

#: The number of the rules by which a sentence is scored and a text is read (`probes.asides.reading`). A gate names the
#: rules that it was made for, so that its digest covers them.
RULES = 3

#: A sentence is the bag of all its runs of 1 to this many characters. Each run has one of 2**BITS weights.
LONGEST_RUN, BITS = 5, 15

_MULTIPLIER, _GOLDEN, _STEP = np.uint64(1000003), np.uint64(0x9E3779B97F4A7C15), 7919


def runs_of(words: Sequence[str]) -> list[npt.NDArray[np.int64]]:
    """Return for each length the numbers of the weights of the runs of characters, in the order in which they start.

    words: those of the sentence, in small letters. One blank stands before, between and behind them.
    """
    letters = np.frombuffer(" ".join(["", *words, ""]).encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
    hashed = letters = letters.astype(np.uint64)
    found = []
    for length in range(1, min(LONGEST_RUN, len(letters)) + 1):
        if length > 1:
            hashed = hashed[:-1] * _MULTIPLIER + letters[length - 1 :]
        found.append(((hashed + np.uint64(length * _STEP)) * _GOLDEN >> np.uint64(64 - BITS)).astype(np.int64))
    return found


def words_of(sentence: str) -> list[str]:
    """Return the words of a sentence in small letters. What has no blanks is one word."""
    return sentence.lower().split()


@dataclass(frozen=True, eq=False)
class AsideGate:
    """Says by a linear score of its runs of characters how surely a sentence is an aside (`probes.asides.reading`).

    Sums are of whole numbers, so every machine finds the same score.

    Attributes:
        weights: (2**BITS,) int16. scale: what 1 of a weight is worth. intercept: the score of a sentence without runs.
    """

    weights: npt.NDArray[np.int16]
    scale: float
    intercept: float

    def score(self, sentence: str) -> float:
        """Return the score of a sentence."""
        return self.scores_from(words_of(sentence), [0])[0]

    def scores_from(self, words: Sequence[str], firsts: Sequence[int]) -> list[float]:
        """Return for each of `firsts` the score of the words from this one on, as if they were a sentence."""
        begins = np.cumsum([0, *(len(word) + 1 for word in words)])
        length = int(begins[-1]) + 1
        behind = np.zeros(length, dtype=np.int64)
        for runs in runs_of(words):
            behind[: len(runs)] += self.weights[runs]
        behind = behind[::-1].cumsum()[::-1]
        return [self._scored(int(behind[begins[one]]), length - int(begins[one])) for one in firsts]

    def _scored(self, total: int, length: int) -> float:
        longest = min(length, LONGEST_RUN)
        return total * self.scale / math.sqrt(longest * length - longest * (longest - 1) // 2) + self.intercept

    @property
    def contents(self) -> bytes:
        """Return the contents of the gate's file."""
        line = np.array([self.scale, self.intercept])
        return bytes(save({"weights": self.weights, "scale_and_intercept": line, "rules": np.array([RULES])}))

    @cached_property
    def digest(self) -> str:
        """The SHA-256 (hex) of the gate's file, by which specs of encoders name it."""
        return hashlib.sha256(self.contents).hexdigest()

    @classmethod
    def read(cls, path: Path = GATE_FILE) -> Self:
        """Return the gate of a file. Raises EncoderError if it holds none, or one that is made for other rules."""
        try:
            tensors = load(path.read_bytes())
            scale, intercept = tensors["scale_and_intercept"].tolist()
            found = cls(tensors["weights"], scale, intercept)
            fits = tensors["rules"].tolist() == [RULES] and found.weights.shape == (1 << BITS,)
        except (OSError, SafetensorError, KeyError, ValueError) as error:
            raise EncoderError(f"{path.name} cannot be read ({error}); install the package again.") from error
        if not fits:
            raise EncoderError(f"{path.name} is made for another version; install the package again.")
        return found
