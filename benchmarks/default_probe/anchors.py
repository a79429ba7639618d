"""Read the anchors: prompts of our own, trivial or hard, whose losses are assumptions.

No public outcomes exist for trivial requests ("Hi!"). Without anchors the default probe has never seen one. Each anchor
is written by us, its loss is what we assume, the artifact says so, and no figure counts one.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]

_FOLDER = Path(__file__).parent / "anchors"

#: The losses that are assumed of economy, standard and frontier.
TRIVIAL_LOSS = (0.03, 0.02, 0.01)
HARD_LOSS = (0.80, 0.55, 0.35)

#: What all anchors together weigh in the fit, where all outcomes together weigh 1.
SHARE = 0.25

_KIND_NAMES = {
    "greeting": "greeting or small talk",
    "chat": "greeting or small talk",
    "arithmetic": "small arithmetic",
    "units": "small arithmetic",
    "choice": "short factual question",
    "fact": "short factual question",
    "translate": "sentence to translate",
    "rewrite": "sentence to rewrite or correct",
    "define": "word to explain",
    "email": "short message to write",
    "list": "short list",
    "extract": "fact to find in a short text",
    "summary": "short text to summarise",
    "code": "small programming question",
    "howto": "everyday advice",
}

_HARD_KIND_NAMES = {
    "proof": "proof or functional equation",
    "calculus": "proof or functional equation",
    "combinatorics": "proof or functional equation",
    "logic": "hard riddle",
    "algorithm": "advanced algorithm to write",
    "compiler": "advanced algorithm to write",
    "debug": "fault in a complex system",
    "design": "system to design",
    "planning": "plan with many conditions",
}


@dataclass(frozen=True, eq=False)
class Anchors:
    """Holds k prompts of our own.

    texts: k prompts. language: k codes such as "de". kind: k names in words. is_hard: (k,).
    """

    texts: tuple[str, ...]
    language: npt.NDArray[np.str_]
    kind: npt.NDArray[np.str_]
    is_hard: npt.NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.texts)

    def losses(self) -> FloatArray:
        """Return the assumed loss of each tier, (k, 3)."""
        return np.where(self.is_hard[:, None], HARD_LOSS, TRIVIAL_LOSS)

    def weights(self) -> FloatArray:
        """Return the weight of each anchor (k,), which sum to SHARE: half for the trivial ones, half for the hard.

        A language counts as the square root of its prompts.
        """
        weight = np.zeros(len(self))
        for side in (False, True):
            rows = np.flatnonzero(self.is_hard == side)
            _, number, count = np.unique(self.language[rows], return_inverse=True, return_counts=True)
            part = 1.0 / np.sqrt(count[number])
            weight[rows] = SHARE / 2 * part / part.sum()
        return weight


def read_anchors() -> Anchors:
    """Return all anchors, in the order of the files."""
    found: list[tuple[str, str, bool, str]] = []
    for name, is_hard in (("trivial_en", False), ("hard_en", True)):
        for line in (_FOLDER / f"{name}.txt").read_text("utf-8").splitlines():
            kind, text = line.split("|", 1)
            found.append(("en", kind, is_hard, text))
    for line in (_FOLDER / "other_languages.txt").read_text("utf-8").splitlines():
        language, side, kind, text = line.split("|", 3)
        found.append((language, kind, side == "h", text))
    # In the files `\\n` is a line break.
    texts = tuple(text.replace("\\n", "\n") for *_, text in found)
    kinds = [
        _HARD_KIND_NAMES.get(kind, "expert question") if is_hard else _KIND_NAMES[kind] for _, kind, is_hard, _ in found
    ]
    return Anchors(
        texts, np.array([row[0] for row in found]), np.array(kinds), np.array([row[2] for row in found], dtype=np.bool_)
    )
