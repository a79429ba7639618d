"""Read a text without the asides at its end and at its beginning, in whatever script it is written.

What is left is a part of the text as it stands, so a request has the same features with asides and without them. Each
sentence is judged by itself. A text of one sentence keeps it, whatever it looks like.
"""

from __future__ import annotations

import re

from probes.asides.gate import AsideGate

#: At most so many asides are left out at the end, and at the beginning.
MOST_AT_THE_END, MOST_AT_THE_BEGINNING = 12, 4

#: A sentence of more characters is no aside.
LONGEST_ASIDE = 300

#: The score that a sentence at the end must exceed. Below it are sentences that say what is asked ("Show that it is
#: solvable."), and hardly any aside.
LIKELY = 0.75

#: The score that last words must exceed which no mark parts from the request ("81 / 9 Thanks").
SURE = 1.5

#: The score that a sentence at the beginning must exceed. A request may begin with the story that it is about ("A train
#: leaves at noon."), and a story sounds like a neutral remark. Greetings and flattery have more.
CERTAIN = 3.0

#: A sentence of fewer letters and figures than this is read with the one behind it: "1.", "Dr.", "A)".
LEAST_LETTERS = 3

Span = tuple[int, int]

_END = re.compile(r"(?<=[.!?…])[\"'”»)\]]*\s+|(?<=[。！？؟।])|\n\s*")
_WORD = re.compile(r"\S+")

#: What follows one of these belongs to the request: "Translate: Thank you!" What ends with one of the others does, too.
_COLONS = (":", "：")
_CLOSING = ('"', "”", "“", "»", "«", "」", "』", "`")
_QUESTION_MARKS = ("?", "？", "؟")


def without_asides(text: str, gate: AsideGate) -> str:
    """Return the text without asides at its end and at its beginning, which is `text` itself if it has none."""
    parts = sentences_of(text)
    kept = list(parts)
    for _ in range(MOST_AT_THE_END):
        begin, end = kept[-1]
        if len(kept) > 1 and not text[: kept[-2][1]].endswith(_COLONS) and _score(text[begin:end], gate) > LIKELY:
            kept.pop()
        elif (cut := _end_before_aside(text[begin:end], gate)) is not None:
            kept[-1] = (begin, begin + cut)
        else:
            break
    first = 0
    while first < min(MOST_AT_THE_BEGINNING, len(kept) - 1) and _score(text[slice(*kept[first])], gate) > CERTAIN:
        first += 1
    return text if kept == parts and first == 0 else text[kept[first][0] : kept[-1][1]]


def sentences_of(text: str) -> list[Span]:
    """Return begin and end of each sentence of a text, without blanks around it. A line break ends one, too."""
    found: list[Span] = []
    begin = 0
    for end in [*(mark.end() for mark in _END.finditer(text)), len(text)]:
        letters = sum(map(str.isalnum, text[begin:end]))
        if letters >= LEAST_LETTERS or (end == len(text) and text[begin:end].strip()):
            found.append(_trimmed(text, begin, end))
            begin = end
    return found or [(0, len(text))]


def _trimmed(text: str, begin: int, end: int) -> Span:
    part = text[begin:end]
    return begin + len(part) - len(part.lstrip()), begin + len(part.rstrip())


def _score(sentence: str, gate: AsideGate) -> float:
    return -1.0 if len(sentence) > LONGEST_ASIDE or sentence.endswith(_CLOSING) else gate.score(sentence)


def _end_before_aside(sentence: str, gate: AsideGate) -> int | None:
    """Return where the sentence ends if last words of it are an aside that no mark parts from it, otherwise None."""
    begins = [] if sentence.endswith((*_QUESTION_MARKS, *_CLOSING)) else unmarked_ends(sentence)
    if not begins:
        return None
    words = [word for word in _WORD.finditer(sentence) if word.start() >= begins[0]]
    number = {word.start(): place for place, word in enumerate(words)}
    scores = gate.scores_from([word[0].lower() for word in words], [number[begin] for begin in begins])
    best = max(range(len(begins)), key=scores.__getitem__)
    return len(sentence[: begins[best]].rstrip()) if scores[best] > SURE else None


def unmarked_ends(sentence: str) -> list[int]:
    """Return where within a sentence an aside may begin that no mark parts from it.

    That is at words with a capital, and at all words of a script that has none. What a colon announces is no aside.
    """
    words = list(_WORD.finditer(sentence))
    if any(word[0].endswith(_COLONS) for word in words):
        return []
    return [
        word.start()
        for word in words[1:]
        if word.start() >= len(sentence) - LONGEST_ASIDE
        and (word[0][0].isupper() or not (word[0][0].isascii() or word[0][0].islower()))
    ]
