"""What the human asks, and what answering needs, out of a chat body of any shape.

The encoder reads about 256 tokens, so what is judged is chosen:

- a chat of one human turn: that turn, to the letter (the probe was fitted on such);
- a longer one: the head of the opening turn, which says what it is all about, and the newest human turn;
- where the newest turn is short ("go ahead"), between the two what it answers: the end of what the assistant last said,
  where questions and proposals stand, or else the human turn before.

Human is what is left of user turns without tool results and without what a harness put there (`router.asking.harness`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from router.asking.harness import human_text, is_marked
from router.asking.language import UNKNOWN, has_code, language_of
from router.asking.turns import NEEDS_OF_PARTS, Turn, json_bytes, read_turns
from router.errors import InvalidRequestError
from router.quoting import quoted
from router.values import Capability, RouteQuery

#: Bytes of UTF-8 per token: close to 4 for English, and 3-byte scripts come out at about one token a sign.
BYTES_PER_TOKEN = 4

#: A stand-in for the tokens of one image, about a 1024 x 1024 picture at high detail.
TOKENS_PER_IMAGE = 765

#: Of the opening turn of a longer chat: tokens of the encoder, about.
OPENING_TOKENS = 100

#: A newest turn of at most this much refers to what was said before: about 20 tokens.
SHORT_TURN_BYTES = 80

#: Of what a short turn refers to: tokens, about. With opening and turn this stays below the encoder's 256.
REFERENCE_TOKENS = 75

#: What the encoder's tokenizer takes apart first: words, and every other sign by itself.
_PIECE = re.compile(r"[^\W_]+|[^\w\s]|_")

#: Largest bound on output tokens. All JSON readers, and protobuf's doubles, hold whole numbers up to 2^53.
_MOST_TOKENS = 2**53

#: Fields of a body, besides messages, whose text the model reads.
_READ_FIELDS = ("tools", "functions", "system", "instructions")


@dataclass(frozen=True)
class Ask:
    """What is judged, and what a candidate must be able to do.

    Attributes:
        text: what the human wants, for the encoder; empty if there is no text, as with a lone image.
        needs: capabilities, besides text, without which a candidate cannot answer.
        unknown_parts: types of content parts that no capability covers; no candidate can answer them.
        input_tokens_estimate: of the whole request.
        max_output_tokens: as the caller bounds it; None if not.
        ends: the opening and the newest human turn, as one if they are the same; empty without one.
        n_images: images in the whole request.
        in_tool_loop: whether the newest turn is what a tool or harness answered, and no human's.
    """

    text: str
    needs: frozenset[Capability]
    unknown_parts: tuple[str, ...]
    input_tokens_estimate: int
    max_output_tokens: int | None
    ends: tuple[str, ...] = ()
    n_images: int = 0
    in_tool_loop: bool = False

    # Nothing is decided by these two: a request that is refused need not pay for them.
    @cached_property
    def language(self) -> str:
        """ISO 639-1 code of the newest human turn's language, or of the judged text's; `und` where unknown."""
        language = language_of(self.ends[-1]) if self.ends else UNKNOWN
        return language if language != UNKNOWN else language_of(self.text)

    @cached_property
    def has_code(self) -> bool:
        """Whether the opening or the newest human turn holds code, or without one the judged text."""
        return any(has_code(words) for words in self.ends or (self.text,))


def extract(query: RouteQuery, *, max_bytes: int) -> Ask:
    """The ask of a query.

    Raises InvalidRequestError, naming the field, for an empty or malformed chat, text that is not valid Unicode, a
    chat without anything to judge, or one of more than `max_bytes` bytes of text.
    """
    turns = read_turns(query.messages)
    size = sum(turn.size for turn in turns) + sum(json_bytes(query.parameters.get(name)) for name in _READ_FIELDS)
    if size > max_bytes:
        raise InvalidRequestError(
            f"messages must hold at most {max_bytes:,} bytes of text, got {size:,}; shorten them, or raise "
            f"--max-prompt-bytes of the service.",
            field="messages",
        )
    parts = [part for turn in turns for part in turn.other_parts]
    human = _human_words(turns)
    spoken = [words for words in human if words]
    text = _text_to_judge(turns, human) if spoken else _text_of_last_resort(turns)
    if not text and not parts:
        raise InvalidRequestError("messages must hold some text or another part to answer, got none.", field="messages")
    n_images = sum(1 for part in parts if NEEDS_OF_PARTS.get(part) is Capability.IMAGE)
    return Ask(
        text=text,
        needs=_needs(turns, parts, query.parameters),
        unknown_parts=tuple(sorted({part for part in parts if part not in NEEDS_OF_PARTS})),
        input_tokens_estimate=-(-size // BYTES_PER_TOKEN) + n_images * TOKENS_PER_IMAGE,
        max_output_tokens=_max_output_tokens(query.parameters),
        ends=tuple(dict.fromkeys((spoken[0], spoken[-1]))) if spoken else (),
        n_images=n_images,
        in_tool_loop=_is_asked(turns, human) and _in_tool_loop(turns, human),
    )


def _human_words(turns: Sequence[Turn]) -> list[str]:
    """Of each turn the human's own words; empty for turns of others."""
    agentic = any(turn.answers_tools for turn in turns) or any(
        is_marked(text) for turn in turns if turn.role == "user" for text in turn.texts
    )
    words, before = [], ""
    for turn in turns:
        texts = turn.texts if turn.role == "user" else ()
        cleaned = [human_text(text, agentic=agentic, answers=before == "assistant") for text in texts]
        # Parts that a harness filled leave no empty lines behind; those of the human stay as they are.
        words.append("\n".join(new for new, old in zip(cleaned, texts, strict=True) if new or new == old).strip())
        before = turn.role
    return words


def _text_to_judge(turns: Sequence[Turn], human: Sequence[str]) -> str:
    spoken = [index for index, words in enumerate(human) if words]
    first, last = spoken[0], spoken[-1]
    chosen = [_head(human[first], OPENING_TOKENS)] if first != last else []
    if len(human[last].encode()) <= SHORT_TURN_BYTES:
        begin = spoken[-2] + 1 if first != last else 0
        said = [turn.text.strip() for turn in turns[begin:last] if turn.role == "assistant" and turn.text.strip()]
        before = human[begin - 1] if begin > first + 1 else ""
        chosen.append(_tail(said[-1] if said else before, REFERENCE_TOKENS))
    return "\n\n".join([*filter(None, chosen), human[last]])


def _text_of_last_resort(turns: Sequence[Turn]) -> str:
    """A chat in which no human speaks is judged by what there is: what stands in for one, other text, tool results."""
    user = [text for turn in turns if turn.role == "user" and (text := turn.text.strip())]
    if user:
        return user[-1]
    return _joined(turn.text for turn in turns) or _joined(text for turn in turns for text in turn.results)


def _joined(texts: Iterable[str]) -> str:
    return "\n".join(stripped for text in texts if (stripped := text.strip()))


def _head(text: str, n_tokens: int) -> str:
    """The beginning of a text, of about so many tokens: whole words, where it is written in such."""
    end, left = 0, n_tokens
    for piece in _PIECE.finditer(text):
        if _tokens(piece[0]) > left:
            return text[: end if end and piece[0].isascii() else piece.start() + _letters(piece[0], left)]
        end, left = piece.end(), left - _tokens(piece[0])
    return text


def _tail(text: str, n_tokens: int) -> str:
    """The end of a text likewise."""
    begin, left = len(text), n_tokens
    # A token has no more letters than a handful, and blanks are few: what lies further back is not looked at.
    looked_at = max(0, len(text) - 20 * n_tokens)
    for piece in reversed(list(_PIECE.finditer(text, looked_at))):
        if _tokens(piece[0]) > left:
            return text[begin if begin < len(text) and piece[0].isascii() else piece.end() - _letters(piece[0], left) :]
        begin, left = piece.start(), left - _tokens(piece[0])
    return text[looked_at:]


def _tokens(piece: str) -> int:
    return -(-len(piece) // _letters_per_token(piece))


def _letters(piece: str, n_tokens: int) -> int:
    return n_tokens * _letters_per_token(piece)


def _letters_per_token(piece: str) -> int:
    # MiniLM's vocabulary has English words, numbers of two digits or so, and of other scripts single letters.
    return 1 if not piece.isascii() else 5 if piece.isalpha() else 2


def _is_asked(turns: Sequence[Turn], human: Sequence[str]) -> bool:
    """Whether a human asks anything, if only by a picture."""
    return any(human) or any(turn.role == "user" and turn.other_parts for turn in turns)


def _in_tool_loop(turns: Sequence[Turn], human: Sequence[str]) -> bool:
    """Whether the newest turn that is neither the assistant's nor a system prompt is no human's."""
    for turn, words in zip(reversed(turns), reversed(human), strict=True):
        if words or (turn.role == "user" and turn.other_parts and not turn.answers_tools):
            return False
        if turn.role in {"user", "tool", "function"}:
            return True
    return False


def _needs(turns: Sequence[Turn], parts: Sequence[str], parameters: Mapping[str, Any]) -> frozenset[Capability]:
    needs = {NEEDS_OF_PARTS[part] for part in parts if part in NEEDS_OF_PARTS}
    modalities = parameters.get("modalities")
    if isinstance(modalities, Sequence) and "audio" in modalities:
        needs.add(Capability.AUDIO)
    offered = parameters.get("tools") or parameters.get("functions")
    # A chat with calls in it is not readable to a model that knows no tools, whether or not more are offered.
    if offered or any(turn.calls_tools or turn.answers_tools for turn in turns):
        needs.add(Capability.TOOLS)
    text, output = parameters.get("text"), parameters.get("output_config")
    formats = (
        parameters.get("response_format"),
        parameters.get("output_format"),
        text.get("format") if isinstance(text, Mapping) else None,
        output.get("format") if isinstance(output, Mapping) else None,
    )
    if any(isinstance(wanted, Mapping) and wanted.get("type") == "json_schema" for wanted in formats):
        needs.add(Capability.JSON_SCHEMA)
    return frozenset(needs)


def _max_output_tokens(parameters: Mapping[str, Any]) -> int | None:
    for key in ("max_completion_tokens", "max_tokens", "max_output_tokens"):
        value = parameters.get(key)
        if value is None:
            continue
        if not isinstance(value, int | float) or isinstance(value, bool) or not 1 <= value <= _MOST_TOKENS or value % 1:
            raise InvalidRequestError(
                f"{key} must be a whole number from 1 to {_MOST_TOKENS:,}, got {quoted(value)}.", field=key
            )
        return int(value)
    return None
