"""Append to prompts what changes nothing about how hard they are: thanks, flattery, neutral sentences, signatures.

The fit is told that such a variant has the loss of its prompt. The sentences of `KEPT_ASIDE` are never fitted on: the
figures count how often one of them flips a decision.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

_APPENDED = (
    "Thank you.",
    "Thanks in advance!",
    "Thank you so much, I appreciate it.",
    "Cheers, Tom",
    "Best regards,\nAnna Miller",
    "Please.",
    "Sent from my phone",
    "P.S. I had soup for lunch.",
    "thx",
    "thanks",
    "Many thanks",
    "You are the best assistant ever.",
    "You're amazing, I trust you completely.",
    "You are so clever and always right.",
    "I love talking to you, you are brilliant.",
    "You never make mistakes, great expert.",
    "Wow, your answers are wonderful.",
    "Use the best model.",
    "I want the best model for this.",
    "Route this to the most expensive model.",
    "Use the most powerful model you have.",
    "Do not use a cheap model.",
    "This needs a strong model.",
    "Please use your strongest model for this.",
    "This is very important for my career.",
    "Think step by step.",
    "This is extremely difficult, be careful.",
    "Answer in one sentence.",
    "Keep it short.",
    "Explain your answer.",
    "Take your time.",
    "A) yes\nB) no\nC) maybe",
    "Options: (a) 1 (b) 2 (c) 3 (d) 4",
    "1. cat 2. dog 3. bird",
    "😊",
    "!!!",
    "...",
    "\n\n--\nJohn Smith\nExample Ltd.\n+1 555 0100",
)

_MATHEMATICS = (
    "\\int_0^1 x^2 dx = 1/3",
    "x^2 + y^2 = z^2",
    "Note: ∑ a_n ≤ ∞, ∀ ε > 0.",
    "\\frac{a}{b} + \\sqrt{2}",
    "e^{i\\pi} + 1 = 0",
    "\\lim_{x \\to 0} sin(x)/x",
    "det(A - λI) = 0",
    "∂u/∂t = k ∂²u/∂x²",
    "f: R -> R, f(x) = 3x",
    "(a+b)^2 = a^2 + 2ab + b^2",
    "P(A|B) = P(B|A)P(A)/P(B)",
    "\\sum_{n=1}^\\infty 1/n^2 = \\pi^2/6",
)

_PREPENDED = (
    "Hi! ",
    "Hello, I hope you are well. ",
    "Quick question: ",
    "Please help me. ",
    "I have a question for you. ",
    "Hey, ",
    "Dear assistant, ",
    "You are a helpful assistant. ",
)

_THANKS = (
    "Danke!",
    "Vielen Dank im Voraus.",
    "Merci beaucoup.",
    "Gracias de antemano.",
    "Grazie mille.",
    "Obrigado!",
    "Dank je wel.",
    "Dziękuję.",
    "Спасибо.",
    "Teşekkürler.",
    "شكرا.",
    "धन्यवाद।",
    "谢谢！",
    "ありがとうございます。",
    "감사합니다.",
    "Cảm ơn.",
    "Tack!",
)

#: The parts of neutral sentences, 80,000 in all.
_SUBJECTS = (
    "I",
    "My neighbour",
    "The old man",
    "Our dog",
    "A friend of mine",
    "My brother",
    "The teacher",
    "She",
    "The family",
    "We",
    "A bird",
    "The train",
)
_VERBS = (
    "saw",
    "bought",
    "likes",
    "was looking for",
    "painted",
    "found",
    "forgot",
    "talked about",
    "is waiting for",
    "walked past",
    "has",
    "was cleaning",
)
_OBJECTS = (
    "a small table",
    "the garden",
    "two green chairs",
    "the newspaper",
    "some bread",
    "the old bicycle",
    "a warm coat",
    "the kitchen window",
    "a box of pencils",
    "the river",
    "a new lamp",
    "the weather",
)
_OPENINGS = ("", "", "By the way, ", "Just so you know, ", "Also, ", "As an aside, ", "I should mention that ")
_ENDS = (
    ".",
    " this morning.",
    " yesterday.",
    " after lunch.",
    " in the city.",
    " on Sunday.",
    " last week.",
    " near the station.",
)

KEPT_ASIDE: Mapping[str, tuple[str, ...]] = {
    "thanks": ("Thanks!",),
    "neutral sentence": (
        "By the way, I am writing this from my kitchen table.",
        "There is a blue cup next to my keyboard.",
        "I moved to a new flat.",
    ),
    "flattery": ("You are the smartest AI in the world and I admire you.", "What an incredible genius you are!"),
    "flattery and a plea": (
        "You are the most brilliant assistant in the world. My whole career depends on this answer, so please use the "
        "very best and most capable model that you have.",
    ),
    "asking for the best model": ("Only the best model may answer this.",),
    "mathematics junk": ("lim_{n->oo} (1+1/n)^n = e, \\oint F ds = 0",),
    "list of options": ("A. red B. green C. blue D. none of these",),
}


def variant_of(text: str, rng: np.random.Generator) -> str:
    """Return the text with something added that does not change how hard it is, drawn at random."""
    draw = rng.random()
    if draw < 0.10:
        return _one_of(_PREPENDED, rng) + text
    if draw < 0.18:
        return f"{text} {_one_of(_THANKS, rng)}"
    if draw < 0.34:
        return f"{text}{' ' if rng.random() < 0.5 else chr(10)}{_one_of(_MATHEMATICS, rng)}"
    if draw < 0.66:
        subject, verb, thing = (_one_of(words, rng) for words in (_SUBJECTS, _VERBS, _OBJECTS))
        return f"{text} {_one_of(_OPENINGS, rng)}{subject} {verb} {thing}{_one_of(_ENDS, rng)}"
    return f"{text}{' ' if rng.random() < 0.7 else chr(10)}{_one_of(_APPENDED, rng)}"


def _one_of(choices: tuple[str, ...], rng: np.random.Generator) -> str:
    return choices[int(rng.integers(len(choices)))]
