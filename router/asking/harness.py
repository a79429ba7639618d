"""Find what the human wrote in a user turn to which a harness, such as a coding agent, added text (`human_texts`).

Harnesses put text into user turns that no human wrote: reminders, the state of the editor, files, output of commands.
They mark it by tags or by a first line (`router.asking.harness_marks`). What has no mark is the human's. Everything
runs in time linear in the text: no pattern can backtrack far, and a closing tag that is missing is searched for once.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence

from router.asking.harness_marks import HarnessSection, MarkIndex, Words

#: An opening tag. The pattern cannot match in two ways, so that a text full of tags that never end takes no longer.
_TAG = r"[ \t]{0,200}+<([\w-]{1,64}+)(?:[ \t][^<>]{0,500}+)?>"

#: Characters of a tag with the blanks before it, at most.
_LONGEST_TAG = 200 + 1 + 64 + 1 + 500 + 1

#: Characters of a text that are searched for tags in one call.
_PIECE = 16 * 1024

_TAG_ANYWHERE = re.compile(_TAG)
_TAG_AT_LINE = re.compile(f"^{_TAG}", re.MULTILINE)

#: How many names of tags without an end a text may hold before tags of unknown names no longer count as blocks. Each
#: costs a search through the text.
_MOST_UNCLOSED = 64

#: The most characters of a text that is compared with patterns as a whole.
_LONGEST_WHOLE = 1000

#: The most characters of the first two lines of what a tool answered, in which the human's words may begin.
_LONGEST_LEAD = 1000


def is_marked(text: str, marks: MarkIndex) -> bool:
    """Return whether a text has a mark that only harnesses write."""
    start = text.lstrip()
    if marks.may_begin(start) and marks.openings.words_of(start) is not None:
        return True
    return "<" in text and _next_tag(text, 0, marks.harness_tags) is not None


def human_texts(texts: Sequence[str], marks: MarkIndex, *, agentic: bool, after_assistant: bool) -> list[str]:
    """Return for each text of a user turn what the human wrote in it.

    It is the same text if no harness added anything, and empty if the human wrote none of it.

    Args:
        texts: the parts of plain text of one turn.
        marks: the marks by which harnesses are known.
        agentic: True if the chat certainly comes from an agent: tools have answered, or some text `is_marked`.
        after_assistant: True if the turn follows one of the assistant's.
    """
    found: list[str] = []
    # The words that belong to the header which the text before was; None if it was no header.
    behind_header: Words | None = None
    for text in _without_sections(texts, marks.sections):
        start = text.lstrip()
        if behind_header is None and not marks.may_begin(start):
            found.append(_without_tags(text, marks, agentic) if "<" in text else text)
            continue
        header = marks.header_of(start)
        is_header = header is not None and (after_assistant or not start[header[0] :].strip())
        if behind_header is not None and not is_header:
            found.append(_words_in(start, behind_header, in_answer=True))
            behind_header = None
        elif header is not None and is_header:
            end, words = header
            content = start[end:].strip()
            behind_header = None if content else words
            found.append(_words_in(content, words, in_answer=True))
        else:
            found.append(_human_text(text, start, marks, agentic, after_assistant))
    return found


def words_in_system(text: str, marks: MarkIndex) -> str:
    """Return the human's words in a system message in the middle of a chat, or an empty text."""
    return _leading_words(text, marks.words_in_system)


def _human_text(text: str, start: str, marks: MarkIndex, agentic: bool, after_assistant: bool) -> str:
    """Return what the human wrote in a text that stands behind no header. `start` is the text without blanks before."""
    if (words := marks.openings.words_of(start)) is not None:
        return _words_in(start, words, in_answer=False)
    if after_assistant and (words := marks.outputs.words_of(start)) is not None:
        return _words_in(start, words, in_answer=True)
    if marks.whole is not None and len(start) <= _LONGEST_WHOLE and marks.whole.fullmatch(start.rstrip()):
        return ""
    for heading in marks.headings:
        if start.startswith(heading.begins) and heading.request in start:
            return start.rpartition(heading.request)[2].strip()
    return _without_tags(text, marks, agentic) if "<" in text else text


def _words_in(text: str, words: Words, *, in_answer: bool) -> str:
    """Return the human's words in a text that a harness wrote, or an empty text.

    in_answer: True if a tool answered the text. It may quote anything, so the words must begin in its first two lines.
    """
    lead = len(text)
    if in_answer and words:
        second_line = text.find("\n", text.find("\n", 0, _LONGEST_LEAD) + 1, _LONGEST_LEAD)
        lead = second_line if second_line >= 0 else _LONGEST_LEAD
    for one in words:
        at = text.find(one.after, 0, lead + len(one.after))
        begin = at + len(one.after)
        end = -1 if at < 0 else len(text) if one.until is None else text.find(one.until, begin)
        if end >= 0:
            return text[begin:end].strip()
    return ""


def _next_tag(text: str, at: int, names: Collection[str] | None) -> re.Match[str] | None:
    """Return the next tag with one of some names at the beginning of a line, or None. `names` None takes any name.

    The names are looked up in a set, and are not part of a pattern. A pattern would try each name at every tag of a
    text. That takes a microsecond, and a text may have a hundred thousand tags.
    """
    # One search through a long text would be a single call, during which no other thread runs.
    for begin in range(at, len(text), _PIECE):
        for found in _TAG_AT_LINE.finditer(text, begin, begin + _PIECE + _LONGEST_TAG):
            if found.start() >= begin + _PIECE:
                break
            if names is None or found[1] in names:
                return found
    return None


def _tag_at(text: str, at: int, names: Collection[str] | None) -> re.Match[str] | None:
    """Return the tag with one of some names that begins at this position, or None. `names` None takes any name."""
    found = _TAG_ANYWHERE.match(text, at)
    return found if found is not None and (names is None or found[1] in names) else None


def _without_tags(text: str, marks: MarkIndex, agentic: bool) -> str:
    return _without_wrapper(_without_blocks(text, marks, agentic), marks.wrappers)


def _without_blocks(text: str, marks: MarkIndex, agentic: bool) -> str:
    """Return a text without the blocks of harnesses; of those in which the human speaks, the words stay."""
    known = marks.agent_tags if agentic else marks.harness_tags
    names: Collection[str] | None = None if _holds_request(text, marks) else known
    kept: list[str] = []
    done = 0
    unclosed: set[str] = set()
    found = _next_tag(text, 0, names)
    while found is not None:
        name = found[1]
        closing = f"</{name}>"
        end = -1 if name in unclosed else text.find(closing, found.end())
        if end < 0:
            # There is no closing tag from here on. So there is none further on either, and nobody looks for it again.
            unclosed.add(name)
            if names is not None or len(unclosed) > _MOST_UNCLOSED:
                names = known - unclosed
            found = _next_tag(text, found.end(), names)
            continue
        kept.append(text[done : found.start()])
        kept.append(_words_of_block(text[found.end() : end], name, marks))
        done = end + len(closing)
        found = _tag_at(text, done, names) or _next_tag(text, done, names)
    if not done:
        return text
    kept.append(text[done:])
    return "".join(kept).strip()


def _holds_request(text: str, marks: MarkIndex) -> bool:
    found = _next_tag(text, 0, marks.requests)
    return found is not None and text.find(f"</{found[1]}>", found.end()) >= 0


def _words_of_block(content: str, name: str, marks: MarkIndex) -> str:
    if name in marks.requests:
        return content
    return _leading_words(content, marks.words_in.get(name, ()))


def _leading_words(text: str, words: Words) -> str:
    """Return the human's words in a text that begins with what stands before them, or an empty text."""
    start = text.lstrip() if words else ""
    return _words_in(start, tuple(one for one in words if start.startswith(one.after)), in_answer=False)


def _without_wrapper(text: str, wrappers: Sequence[str]) -> str:
    inner = text.strip()
    for name in wrappers:
        opening, closing = f"<{name}>", f"</{name}>"
        if inner.startswith(opening) and inner.find(closing) == len(inner) - len(closing):
            return inner[len(opening) : -len(closing)].strip()
    return text


def _without_sections(texts: Sequence[str], sections: Sequence[HarnessSection]) -> Sequence[str]:
    for section in sections:
        if [text for text in texts if section.begins in text]:
            texts = list(_without_section(texts, section))
    return texts


def _without_section(texts: Sequence[str], section: HarnessSection) -> Iterator[str]:
    """Yield each text without the sections of one kind. A section that has no end is none."""
    kept: list[list[str]] = [[] for _ in texts]
    index = at = 0
    has_end = True
    while index < len(texts):
        begin = _line_with(texts[index], section.begins, at) if has_end else -1
        ended = _end_of_section(texts, index, begin, section.ends) if begin >= 0 else None
        if ended is not None:
            kept[index].append(texts[index][at:begin])
            index, at = ended
            continue
        # If one section has no end, no later one has: nobody looks for it again.
        has_end = begin < 0 and has_end
        kept[index].append(texts[index][at:])
        index, at = index + 1, 0
    for pieces, text in zip(kept, texts, strict=True):
        whole = "".join(pieces)
        yield text if len(whole) == len(text) else whole.strip()


def _end_of_section(texts: Sequence[str], index: int, begin: int, ends: str) -> tuple[int, int] | None:
    """Return in which text a section ends, and where in it, or None if it has no end."""
    for later in range(index, len(texts)):
        at = _line_with(texts[later], ends, begin if later == index else 0)
        if at >= 0:
            return later, at + len(ends)
    return None


def _line_with(text: str, beginning: str, at: int) -> int:
    """Return where the next line with a beginning begins in a text, or -1."""
    found = text.find(beginning, at)
    while found > 0 and text[found - 1] != "\n":
        found = text.find(beginning, found + 1)
    return found
