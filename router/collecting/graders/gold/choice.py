"""Grade the answer to a multiple-choice question (`MultipleChoice`)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from router.collecting.graders.base import Grader, GradingContext, readable
from router.collecting.graders.gold.contains import alone
from router.collecting.graders.gold.exact import normalised
from router.collecting.values import ModelAnswer, Sample, Verdict

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"

_MARKS = r"[\s*_`\"'(\[{$]*"
_BOXED = re.compile(r"\\boxed\s*\{(?:\\text\s*\{)?\s*\(?([A-Z])\)?\s*\}")
#: "The answer is (B)", "Answer: B", "the correct option is **B**", "I choose B".
_SAID = re.compile(
    r"(?i:\b(?:answer|option|choice|choose|select|pick)\b)[\s*_`]*(?i:is|would be|must be|letter|option)?[\s:=*_`]*"
    r"(?i:option|letter)?" + _MARKS + r"([A-Z])(?![\w'])"
)
_ALSO = re.compile(r"[)\]}*_`.\s]*(?:,|/|&|and\b|or\b)" + _MARKS + r"([A-Z])(?![\w'])")
_LINE = re.compile(r"^[\s*_`(\[]*([A-Z])[)\].:*_`]+(?=\s|$)", re.MULTILINE)
_BRACKETS = re.compile(r"[(\[]\s*([A-Z])\s*[)\]]")
_ALL = re.compile(r"[\s*_`\"'(\[{$]*([A-Za-z])[\s*_`\"')\]}$.:!]*")
_ANSWER_IS = re.compile(r"\b(?:answer|option|choice)\b\s*(?:is|:|=)", re.IGNORECASE)


@dataclass(frozen=True)
class MultipleChoice(Grader):
    """Finds which option the answer chooses: 1 if it is the right one, and 0 otherwise, also if it chooses none.

    The reference is the letter of an option or its text; without `choices` only letters are understood. The answer may
    be the letter, a sentence such as "The answer is (B)", or the text of exactly one option. An answer that names two
    letters as its answer chooses none.
    """

    name: ClassVar[str] = "choice"
    column: ClassVar[str] = "reference"

    async def grade(self, sample: Sample, answer: ModelAnswer, context: GradingContext) -> Verdict:
        """Return 1 or 0; see the class."""
        if not sample.reference:
            return self.no_verdict("the sample has no reference")
        right = _reference_letter(sample.reference, sample.choices)
        if right is None:
            return self.no_verdict("the reference is neither the letter of an option nor its text")
        chosen = chosen_letter(readable(answer.text), sample.choices)
        return self.verdict(float(chosen == right), chosen=chosen or "")


def _reference_letter(reference: str, choices: Sequence[str]) -> str | None:
    texts = [normalised(choice) for choice in choices]
    if texts.count(normalised(reference)) == 1:
        return LETTERS[texts.index(normalised(reference))] if len(texts) <= len(LETTERS) else None
    whole = _ALL.fullmatch(reference)
    return whole[1].upper() if whole and whole[1].upper() in _letters(choices) else None


def _letters(choices: Sequence[str]) -> str:
    return LETTERS[: len(choices) or len(LETTERS)]


def chosen_letter(text: str, choices: Sequence[str]) -> str | None:
    """Return the letter of the option that a text chooses, or None if it chooses none or several.

    choices: the texts of the options; without them only letters are understood.
    """
    letters = _letters(choices)
    whole = _ALL.fullmatch(text[:100]) if len(text) <= 100 else None
    if whole and whole[1].upper() in letters:
        return whole[1].upper()
    for pattern in (_BOXED, _SAID):
        said = [match for match in pattern.finditer(text) if match[1] in letters]
        if said:
            also = _ALSO.match(text, said[-1].end())
            return None if also and also[1] in letters and also[1] != said[-1][1] else said[-1][1]
    return _by_text(text, choices) or _by_marks(text, letters)


def _by_text(text: str, choices: Sequence[str]) -> str | None:
    """Return the option whose text the answer holds, if it is one only; what follows "the answer is" comes first."""
    said = list(_ANSWER_IS.finditer(text))
    for part in ([text[said[-1].end() :]] if said else []) + [text]:
        words = normalised(part)
        # "New York City" holds "New York" too, and the longer option is meant.
        held = [option for option in map(normalised, choices) if option and alone(option).search(words)]
        longest = [one for one in held if not any(one != other and alone(one).search(other) for other in held)]
        if len(longest) == 1:
            index = [normalised(choice) for choice in choices].index(longest[0])
            return LETTERS[index] if index < len(LETTERS) else None
    return None


def _by_marks(text: str, letters: str) -> str | None:
    """Return the letter that alone is written as options are, "B." at the start of a line or "(B)" anywhere."""
    found = {match[1] for pattern in (_LINE, _BRACKETS) for match in pattern.finditer(text) if match[1] in letters}
    return found.pop() if len(found) == 1 else None
