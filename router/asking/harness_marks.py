"""Define the marks by which harnesses are known (`HarnessMarks`), and look them up in constant time (`MarkIndex`).

The service ships marks of public harnesses in harness_marks.yaml; a policy may add its own.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from router.yaml_file import read_yaml

SHIPPED_MARKS = Path(__file__).with_name("harness_marks.yaml")

#: The largest number of marks of one kind in an entry. A text is compared with each header and each section by itself,
#: so there may be fewer of them.
_MOST_MARKS, _MOST_COMPARED = 200, 20

#: The characters of a text's beginning by which openings are looked up.
_KEY_CHARACTERS = 4

#: What the placeholders of a pattern stand for. Each can match in one way only, or is bounded.
_PLACEHOLDERS = {"{name}": r"[a-z][a-z0-9_.-]{0,63}+", "{words}": r"[^\n]{0,500}"}
_PLACEHOLDER = re.compile(r"(\{name\}|\{words\})")


def _check_pattern(pattern: str) -> str:
    for placeholder in _PLACEHOLDERS:
        if pattern.count(placeholder) > 1:
            raise ValueError(f"must hold {placeholder} at most once")
    return pattern


_Tag = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_-]{0,63}$")]
_Text = Annotated[str, Field(min_length=_KEY_CHARACTERS, max_length=200, pattern=r"^\S")]
_Pattern = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[^\s{]"), AfterValidator(_check_pattern)]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class RequestHeading(_Frozen):
    """A text that begins with `begins`; the human's words stand behind the last `request` in it."""

    begins: _Text
    request: _Text


class HarnessSection(_Frozen):
    """Lines from one that begins with `begins` to one that begins with `ends`, also across the parts of a turn."""

    begins: _Text
    ends: _Text


class HumanWords(_Frozen):
    """The human's words in a text that the harness wrote otherwise.

    Attributes:
        after: what stands before the words.
        until: what stands behind them; absent: they end with the text.
        in_system: True if system messages in the middle of a chat that begin with `after` hold the words too.
    """

    after: _Text
    until: _Text | None = None
    in_system: bool = False


class HarnessMarks(_Frozen):
    """The marks of one harness, such as a coding agent: what it adds to user turns, and around the human's words.

    Attributes:
        blocks: tags that only this harness writes. A closed block that begins a line, or follows a block, is not the
            human's.
        shared_blocks: tags that people write too. They count as blocks only in chats that certainly come from an agent:
            tools have answered, or a mark that only harnesses write was found.
        requests: tags around the human's words. If one is there, every other closed tag that begins a line is a block.
        wrappers: tags around the human's words that people write too. They are removed if they enclose all that is left
            of a text.
        openings: the beginnings of texts that the harness wrote from beginning to end.
        outputs: the beginnings of texts that repeat what a command or tool answered. They count only in turns that
            follow the assistant's.
        headers: patterns of the line that stands before what a tool answered. A header that is a text of its own
            belongs to the text behind it; with the answer in the same text it counts only in turns that follow the
            assistant's. In a pattern, `{name}` stands for a lower-case name and `{words}` for up to 500 characters of
            one line.
        whole: patterns of whole texts that the harness wrote.
        headings: headings before the human's words.
        sections: lines between which the harness copied something.
        replies: whole texts of the assistant that the harness wrote. A short turn of the human does not refer to them.
        words: where the human's words stand inside the texts and blocks of this harness. In what a tool answered they
            must begin in the first two lines, in a block at its beginning.
    """

    blocks: tuple[_Tag, ...] = Field(default=(), max_length=_MOST_MARKS)
    shared_blocks: tuple[_Tag, ...] = Field(default=(), max_length=_MOST_MARKS)
    requests: tuple[_Tag, ...] = Field(default=(), max_length=_MOST_MARKS)
    wrappers: tuple[_Tag, ...] = Field(default=(), max_length=_MOST_COMPARED)
    openings: tuple[_Text, ...] = Field(default=(), max_length=_MOST_MARKS)
    outputs: tuple[_Text, ...] = Field(default=(), max_length=_MOST_MARKS)
    headers: tuple[_Pattern, ...] = Field(default=(), max_length=_MOST_COMPARED)
    whole: tuple[_Pattern, ...] = Field(default=(), max_length=_MOST_COMPARED)
    headings: tuple[RequestHeading, ...] = Field(default=(), max_length=_MOST_COMPARED)
    sections: tuple[HarnessSection, ...] = Field(default=(), max_length=_MOST_COMPARED)
    replies: tuple[_Text, ...] = Field(default=(), max_length=_MOST_MARKS)
    words: tuple[HumanWords, ...] = Field(default=(), max_length=_MOST_COMPARED)


Words = tuple[HumanWords, ...]


class _Beginnings:
    """Looks up with which of many beginnings a text begins, and the human's words that belong to it."""

    def __init__(self, beginnings: Iterable[tuple[str, Words]]) -> None:
        self._by_key: dict[str, list[tuple[str, Words]]] = defaultdict(list)
        for beginning, words in beginnings:
            self._by_key[beginning[:_KEY_CHARACTERS]].append((beginning, words))

    def words_of(self, text: str) -> Words | None:
        """Return the words that belong to the beginning of a text, or None if it begins with none of them."""
        for beginning, words in self._by_key.get(text[:_KEY_CHARACTERS], ()):
            if text.startswith(beginning):
                return words
        return None


@dataclass(frozen=True)
class MarkIndex:
    """The marks of many harnesses, arranged for looking them up.

    Attributes:
        beginnings: the first characters, as many as _KEY_CHARACTERS or one, of all marks that begin a text.
        harness_tags: the tags that only harnesses write, those around requests among them.
        agent_tags: these and the tags that people write too.
        words_in: for each tag of a block the human's words that may stand in it.
    """

    beginnings: frozenset[str]
    harness_tags: frozenset[str]
    agent_tags: frozenset[str]
    requests: frozenset[str]
    wrappers: tuple[str, ...]
    openings: _Beginnings
    outputs: _Beginnings
    headers: tuple[tuple[re.Pattern[str], Words], ...]
    whole: re.Pattern[str] | None
    headings: tuple[RequestHeading, ...]
    sections: tuple[HarnessSection, ...]
    replies: frozenset[str]
    words_in_system: Words
    words_in: Mapping[str, Words]

    @classmethod
    def of(cls, entries: Iterable[HarnessMarks]) -> MarkIndex:
        """Return the index of these entries."""
        harnesses = tuple(entries)
        requests = frozenset(chain.from_iterable(one.requests for one in harnesses))
        tags = requests.union(*(one.blocks for one in harnesses))
        whole = [_expression(pattern) for one in harnesses for pattern in one.whole]
        texts = [text for one in harnesses for text in (*one.openings, *one.outputs, *_before_requests(one))]
        patterns = [pattern for one in harnesses for pattern in (*one.headers, *one.whole)]
        return cls(
            beginnings=frozenset([*(text[:_KEY_CHARACTERS] for text in texts), *map(_key_of_pattern, patterns)]),
            harness_tags=tags,
            agent_tags=tags.union(*(one.shared_blocks for one in harnesses)),
            requests=requests,
            wrappers=tuple(dict.fromkeys(chain.from_iterable(one.wrappers for one in harnesses))),
            openings=_Beginnings((text, one.words) for one in harnesses for text in one.openings),
            outputs=_Beginnings((text, one.words) for one in harnesses for text in one.outputs),
            headers=tuple((re.compile(_expression(text)), one.words) for one in harnesses for text in one.headers),
            whole=re.compile("|".join(whole)) if whole else None,
            headings=tuple(chain.from_iterable(one.headings for one in harnesses)),
            sections=tuple(chain.from_iterable(one.sections for one in harnesses)),
            replies=frozenset(chain.from_iterable(one.replies for one in harnesses)),
            words_in_system=tuple(words for one in harnesses for words in one.words if words.in_system),
            words_in={tag: one.words for one in reversed(harnesses) if one.words for tag in one.blocks},
        )

    def may_begin(self, text: str) -> bool:
        """Return whether some mark may begin a text. Most texts begin with none, and are not compared further."""
        return text[:_KEY_CHARACTERS] in self.beginnings or text[:1] in self.beginnings

    def header_of(self, text: str) -> tuple[int, Words] | None:
        """Return where the header of a tool's answer ends in a text and the words that belong to it, or None."""
        for pattern, words in self.headers:
            if found := pattern.match(text):
                return found.end(), words
        return None


def _before_requests(harness: HarnessMarks) -> tuple[str, ...]:
    return tuple(heading.begins for heading in harness.headings)


def _key_of_pattern(pattern: str) -> str:
    """Return the first characters of a pattern, or the first one if a placeholder follows soon."""
    literal = pattern.partition("{")[0]
    return literal[:_KEY_CHARACTERS] if len(literal) >= _KEY_CHARACTERS else literal[:1]


def _expression(pattern: str) -> str:
    return "".join(_PLACEHOLDERS.get(piece) or re.escape(piece) for piece in _PLACEHOLDER.split(pattern))


@cache
def shipped_harnesses() -> tuple[int, Mapping[str, HarnessMarks]]:
    """Return the version of the marks that are shipped, and the marks of each harness by its name."""
    data: dict[str, Any] = read_yaml(SHIPPED_MARKS, "marks of harnesses")
    return data["version"], {name: HarnessMarks.model_validate(one) for name, one in data["harnesses"].items()}


@cache
def shipped_marks() -> MarkIndex:
    """Return the index of the marks that are shipped."""
    return MarkIndex.of(shipped_harnesses()[1].values())


def marks_with(own: Mapping[str, HarnessMarks]) -> MarkIndex:
    """Return the index of the marks that are shipped and of a policy's own."""
    return MarkIndex.of((*shipped_harnesses()[1].values(), *own.values())) if own else shipped_marks()
