"""Find in a chat body of any shape what the human asks, and what a candidate needs to answer it (`extract`).

The encoder reads about 256 tokens, so the text to judge is put together from the chat:

- If there is one human turn, it is the text, character for character. The probe was fitted on such prompts.
- If there are more, the text is the beginning of the first one, which says what the chat is about, and the newest one.
- If the newest turn is short ("go ahead"), what it answers is put between the two: the end of what the assistant said
  last, because questions and proposals are there; or else the human turn before.

A human turn is what is left of a user turn without tool results and without the text that a coding agent or editor, a
harness, put there (`router.asking.harness`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from router.asking.harness import human_texts, is_marked, words_in_system
from router.asking.harness_marks import MarkIndex, shipped_marks
from router.asking.language import UNKNOWN, has_code, language_of
from router.asking.native_needs import native_needs
from router.asking.parameters import OUTPUT_BOUNDS, given_parameters, output_bound
from router.asking.turns import NEEDS_OF_PARTS, Turn, json_bytes, read_turns
from router.errors import InvalidRequestError
from router.values import ApiFormat, Capability, RouteQuery, SpokenApi

#: Bytes of UTF-8 per token. English has close to 4; a script with 3 bytes per character gets about one token for each.
BYTES_PER_TOKEN = 4

#: The tokens that one image is taken to have: about those of a picture of 1024 x 1024 pixels at high detail.
TOKENS_PER_IMAGE = 765

#: About how many tokens of the encoder are taken of the first human turn of a longer chat.
OPENING_TOKENS = 100

#: A newest turn of at most this many bytes, about 20 tokens, is taken to refer to what was said before.
SHORT_TURN_BYTES = 80

#: About how many tokens are taken of what a short turn refers to. All three together stay below the encoder's 256.
REFERENCE_TOKENS = 75

#: The pieces into which the encoder's tokenizer splits a text first: words, and every other character by itself.
_PIECE = re.compile(r"[^\W_]+|[^\w\s]|_")

#: The fields of a body, besides messages, that hold text for the model.
READ_FIELDS = ("tools", "functions", "system", "instructions")


#: The APIs of OpenAI that not every candidate speaks, and the field of each in which is asked.
_NATIVE = {ApiFormat.OPENAI_RESPONSES: SpokenApi.RESPONSES, ApiFormat.OPENAI_COMPLETIONS: SpokenApi.COMPLETIONS}
_FIELDS: Mapping[SpokenApi | None, str] = {SpokenApi.RESPONSES: "input", SpokenApi.COMPLETIONS: "prompt"}


@dataclass(frozen=True)
class Ask:
    """What the human asks in a request, and what a candidate must be able to do to answer it.

    Attributes:
        text: what the human wants, for the encoder; empty if there is no text, as with a lone image.
        needs: the capabilities, besides text, without which a candidate cannot answer.
        unknown_parts: the types of content parts that no capability covers.
        input_tokens_estimate: the estimated input tokens of the whole request.
        max_output_tokens: the caller's bound on output tokens; None if there is none.
        first_and_last: the texts of the first and of the newest human turn; one text if they are equal, and none if no
            human speaks.
        n_images: the number of images in the whole request.
        in_tool_loop: True if the newest turn comes from a tool or a harness, and not from a human.
        native_needs: the fields, items, tools and parts that only a candidate understands that speaks the API itself.
        native_api: the API of OpenAI in which the request came; None for chats and for Anthropic's API.
        api_format: the API in whose shape the request came.
        given: the parameters of the request by their names in chat completions.
    """

    text: str
    needs: frozenset[Capability]
    unknown_parts: tuple[str, ...]
    input_tokens_estimate: int
    max_output_tokens: int | None
    first_and_last: tuple[str, ...] = ()
    n_images: int = 0
    in_tool_loop: bool = False
    native_needs: tuple[str, ...] = ()
    native_api: SpokenApi | None = None
    api_format: ApiFormat = ApiFormat.OPENAI_CHAT
    given: Mapping[str, Any] = field(default_factory=dict)

    # These two decide nothing. They are computed when the record is made, so that a refused request does not pay for
    # them.
    @property
    def language(self) -> str:
        """Return the ISO 639-1 code of the language of the newest human turn, or else of the text; `und` if unknown."""
        language = language_of(self.first_and_last[-1]) if self.first_and_last else UNKNOWN
        return language if language != UNKNOWN else language_of(self.text)

    @property
    def has_code(self) -> bool:
        """Return whether the first or the newest human turn holds code; without a human turn, whether the text does."""
        return any(map(has_code, self.first_and_last or (self.text,)))


def extract(query: RouteQuery, *, max_bytes: int, marks: MarkIndex | None = None) -> Ask:
    """Return what the human asks in a query, as an `Ask`.

    marks: the marks by which harnesses are known; None takes those that are shipped.

    Raises InvalidRequestError, which names the field, for an empty or malformed chat, for text that is not valid
    Unicode, for a chat without anything to judge, and for more than `max_bytes` bytes of text.
    """
    api = _NATIVE.get(query.api_format)
    name = _FIELDS.get(api, "messages")
    turns = read_turns(query.messages, field=name)
    size = sum([turn.size for turn in turns])
    if query.parameters:
        size += sum([json_bytes(value) for field in READ_FIELDS if (value := query.parameters.get(field))])
    if size > max_bytes:
        raise InvalidRequestError(
            f"{name} must hold at most {max_bytes:,} bytes of text, got {size:,}; shorten it, or raise "
            f"--max-prompt-bytes of the service.",
            field=name,
        )
    parts = [part for turn in turns for part in turn.other_parts]
    marks = marks or shipped_marks()
    human = _human_texts(turns, marks)
    spoken = [words for words in human if words]
    text = _text_to_judge(turns, human, marks) if spoken else _text_without_human(turns)
    native = native_needs(query)
    if not text and not parts and not native:
        raise InvalidRequestError(f"{name} must hold some text or another part to answer, got none.", field=name)
    n_images = sum([NEEDS_OF_PARTS.get(part) is Capability.IMAGE for part in parts])
    return Ask(
        text=text,
        needs=_needs(turns, parts, query.parameters),
        unknown_parts=tuple(sorted({part for part in parts if part not in NEEDS_OF_PARTS})),
        input_tokens_estimate=-(-size // BYTES_PER_TOKEN) + n_images * TOKENS_PER_IMAGE,
        max_output_tokens=_max_output_tokens(query),
        first_and_last=tuple(dict.fromkeys((spoken[0], spoken[-1]))) if spoken else (),
        n_images=n_images,
        in_tool_loop=_human_asks(turns, human) and _in_tool_loop(turns, human),
        native_needs=native,
        native_api=api,
        api_format=query.api_format,
        given=given_parameters(query.parameters, query.api_format),
    )


def _human_texts(turns: Sequence[Turn], marks: MarkIndex) -> list[str]:
    """Return for each turn the text that the human wrote, which is empty if no human speaks in the turn."""
    agentic = any(turn.answers_tools for turn in turns) or any(
        is_marked(text, marks) for turn in turns if turn.role == "user" for text in turn.texts
    )
    words, before = [], ""
    for turn in turns:
        texts = turn.texts if turn.role == "user" else ()
        cleaned = human_texts(texts, marks, agentic=agentic, after_assistant=before == "assistant")
        # A part that a harness filled leaves no empty line behind. An empty part of the human stays.
        spoken = [new for new, old in zip(cleaned, texts, strict=True) if new or new == old]
        if turn.role == "system" and before:
            spoken = [new for text in turn.texts if (new := words_in_system(text, marks))]
        words.append("\n".join(spoken).strip())
        before = turn.role
    return words


def _text_to_judge(turns: Sequence[Turn], human: Sequence[str], marks: MarkIndex) -> str:
    """Return the beginning of the first human turn, what a short newest turn refers to, and the newest turn."""
    spoken = [index for index, words in enumerate(human) if words]
    first, last = spoken[0], spoken[-1]
    chosen = [_head(human[first], OPENING_TOKENS)] if first != last else []
    if len(human[last].encode()) <= SHORT_TURN_BYTES:
        begin = spoken[-2] + 1 if first != last else 0
        said = [turn.text.strip() for turn in turns[begin:last] if turn.role == "assistant"]
        said = [text for text in said if text and text not in marks.replies]
        before = human[begin - 1] if begin > first + 1 else ""
        chosen.append(_tail(said[-1] if said else before, REFERENCE_TOKENS))
    return "\n\n".join([*filter(None, chosen), human[last]])


def _text_without_human(turns: Sequence[Turn]) -> str:
    """Return the text to judge if no human speaks: the last user turn, or all other text, or all tool results."""
    user = [text for turn in turns if turn.role == "user" and (text := turn.text.strip())]
    if user:
        return user[-1]
    return _joined(turn.text for turn in turns) or _joined(text for turn in turns for text in turn.results)


def _joined(texts: Iterable[str]) -> str:
    return "\n".join(stripped for text in texts if (stripped := text.strip()))


def _head(text: str, n_tokens: int) -> str:
    """Return the beginning of a text, about `n_tokens` tokens long. It ends behind a whole word if it can."""
    end, left = 0, n_tokens
    for piece in _PIECE.finditer(text):
        if _tokens(piece[0]) > left:
            return text[: end if end and piece[0].isascii() else piece.start() + _characters(piece[0], left)]
        end, left = piece.end(), left - _tokens(piece[0])
    return text


def _tail(text: str, n_tokens: int) -> str:
    """Return the end of a text, about `n_tokens` tokens long. It begins with a whole word if it can."""
    begin, left = len(text), n_tokens
    # A token has a handful of characters, and blanks are few. So what lies further back cannot be part of the end.
    looked_at = max(0, len(text) - 20 * n_tokens)
    for piece in reversed(list(_PIECE.finditer(text, looked_at))):
        if _tokens(piece[0]) > left:
            return text[
                begin if begin < len(text) and piece[0].isascii() else piece.end() - _characters(piece[0], left) :
            ]
        begin, left = piece.start(), left - _tokens(piece[0])
    return text[looked_at:]


def _tokens(piece: str) -> int:
    # -(-a // b) rounds up.
    return -(-len(piece) // _characters_per_token(piece))


def _characters(piece: str, n_tokens: int) -> int:
    return n_tokens * _characters_per_token(piece)


def _characters_per_token(piece: str) -> int:
    # MiniLM's vocabulary has English words, numbers of about two digits, and single characters of other scripts.
    return 1 if not piece.isascii() else 5 if piece.isalpha() else 2


def _human_asks(turns: Sequence[Turn], human: Sequence[str]) -> bool:
    """Return whether some turn holds a question of a human, by text or by a picture."""
    return any(human) or any(turn.role == "user" and turn.other_parts for turn in turns)


def _in_tool_loop(turns: Sequence[Turn], human: Sequence[str]) -> bool:
    """Return whether the newest turn, not counting the assistant's and system prompts, comes from no human."""
    for turn, words in zip(reversed(turns), reversed(human), strict=True):
        if words or (turn.role == "user" and turn.other_parts and not turn.answers_tools):
            return False
        if turn.role in {"user", "tool", "function"}:
            return True
    return False


def _needs(turns: Sequence[Turn], parts: Sequence[str], parameters: Mapping[str, Any]) -> frozenset[Capability]:
    """Return the capabilities that a request needs, in the terms of OpenAI chat, OpenAI Responses and Anthropic."""
    needs = {NEEDS_OF_PARTS[part] for part in parts if part in NEEDS_OF_PARTS}
    # A model that knows no tools cannot read a chat with tool calls in it, even if no more tools are offered.
    if any(turn.calls_tools or turn.answers_tools for turn in turns):
        needs.add(Capability.TOOLS)
    if not parameters:
        return frozenset(needs)
    modalities = parameters.get("modalities")
    if isinstance(modalities, Sequence) and "audio" in modalities:
        needs.add(Capability.AUDIO)
    if parameters.get("tools") or parameters.get("functions"):
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


def _max_output_tokens(query: RouteQuery) -> int | None:
    """Return the caller's bound on output tokens, which has three names in the APIs, or None if it is not set."""
    for key in OUTPUT_BOUNDS:
        value = query.parameters.get(key)
        if value is not None:
            return output_bound(key, value, query.api_format)
    return None
