"""Write what a judge is asked: a prompt of ours, and the data between marks that no answer can guess (`Question`)."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources

from router.asking.turns import read_turns
from router.collecting.graders.base import readable
from router.errors import InvalidRequestError
from router.values import Message

#: Beyond this many characters a request or an answer is cut before a judge reads it: the beginning and the end stay.
MAX_JUDGED_CHARACTERS = 24_000

#: English has about four bytes to a token; three make an upper estimate for most texts.
_BYTES_PER_TOKEN = 3


@cache
def prompt_text(name: str) -> str:
    """Return one of the prompts in `prompts/`; its name ends in its version, such as `pairwise-1`."""
    return resources.files(__package__).joinpath(f"prompts/{name}.txt").read_text("utf-8").strip()


@dataclass(frozen=True, slots=True)
class Question:
    """What a judge is asked about one answer.

    Attributes:
        prompt: our instructions, which become the system message.
        data: pairs of a title and a text that others wrote, in order.
        verdicts: the verdicts that the judge may give, all texts or all whole numbers.
    """

    prompt: str
    data: tuple[tuple[str, str], ...]
    verdicts: tuple[str, ...] | tuple[int, ...]

    def messages(self) -> list[Message]:
        """Return the chat for the judge: our instructions, and the data between marks."""
        data = [(title, cut(readable(text))) for title, text in self.data]
        mark = _mark([text for _, text in data])
        pieces = [f"<<<{mark} {title}\n{text}\n{mark}>>>" for title, text in data]
        return [
            {"role": "system", "content": self.prompt},
            {"role": "user", "content": "\n\n".join(pieces)},
        ]


def _mark(texts: Sequence[str]) -> str:
    """Return 16 hexadecimal digits that stand in none of the texts.

    They are a digest of the texts, so that the same question is the same call again and costs nothing. Whoever writes
    an answer cannot put the mark into it, because that would change the mark.
    """
    digest = hashlib.sha256("\0".join(texts).encode("utf-8", "surrogatepass"))
    while any(digest.hexdigest()[:16] in text for text in texts):
        digest.update(b"again")
    return digest.hexdigest()[:16]


def cut(text: str, most: int = MAX_JUDGED_CHARACTERS) -> str:
    """Return a text, or its beginning and its end if it has more than `most` characters."""
    if len(text) <= most:
        return text
    return f"{text[: most // 2]}\n[... {len(text) - most:,} characters are left out here ...]\n{text[-(most // 2) :]}"


def transcript(messages: Sequence[Message]) -> str:
    """Return a chat as a text for a judge. A chat of one user message is that message.

    What a judge cannot see, such as an image, is named in brackets.
    """
    try:
        turns = read_turns(messages)
    except InvalidRequestError:
        return str(messages)
    said = [
        "\n".join([*turn.texts, *turn.results, *(f"[{kind}, which you cannot see]" for kind in turn.other_parts)])
        + ("\n[calls a tool]" if turn.calls_tools else "")
        for turn in turns
    ]
    if len(turns) == 1:
        return said[0]
    return "\n\n".join(f"[{turn.role}]\n{text}" for turn, text in zip(turns, said, strict=True))


def tokens_of(texts: Sequence[str], answer_tokens: int, n_answers: int) -> int:
    """Return an upper estimate of the tokens of known texts and of `n_answers` answers that are not known yet."""
    known = sum(min(len(text.encode("utf-8", "surrogatepass")), 4 * MAX_JUDGED_CHARACTERS) for text in texts)
    return -(-known // _BYTES_PER_TOKEN) + n_answers * min(answer_tokens, MAX_JUDGED_CHARACTERS) + 100
