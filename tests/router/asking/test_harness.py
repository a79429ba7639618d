"""The text of a harness is removed from a user turn, in linear time."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator

import pytest

from router.asking import harness
from router.asking.ask import extract
from router.asking.harness import human_texts, is_marked
from router.asking.harness_marks import shipped_marks
from router.values import RouteQuery


def words(text: str, *, agentic: bool = False, after_assistant: bool = False) -> str:
    (found,) = human_texts([text], shipped_marks(), agentic=agentic, after_assistant=after_assistant)
    return found


def test_a_text_that_no_harness_touched_is_returned_unchanged() -> None:
    text = "  Compare <b>these</b>:\n<context>a</context>\n<file>b</file>\n\nObservation: both are short. "
    assert words(text) is text
    assert not is_marked(text, shipped_marks())


def test_a_block_may_follow_another_one_on_the_same_line() -> None:
    text = "<ide_opened_file>a</ide_opened_file> <system-reminder>b</system-reminder>Why?"
    assert words(text) == "Why?"


def test_a_tag_inside_a_sentence_belongs_to_the_human() -> None:
    text = "What is a <system-reminder>thing</system-reminder> for?"
    assert words(text) is text


def test_tags_that_people_write_too_are_blocks_only_in_the_chat_of_an_agent() -> None:
    text = "<context>\nlong\n</context>\nWhy?"
    assert words(text, agentic=True) == "Why?"
    assert words(text) is text


def test_repeated_output_counts_only_in_a_turn_after_the_assistant() -> None:
    text = "Observation: it rains."
    assert words(text, after_assistant=True) == ""
    assert words(text) is text


def test_a_wrapper_is_removed_only_if_it_encloses_the_whole_turn() -> None:
    assert words("<task>\nCount to ten.\n</task>") == "Count to ten."
    for text in ("<task>a</task>\n<task>b</task>", "<task>a</task> now"):
        assert words(text) is text


@pytest.mark.parametrize("blanks", range(120))
def test_a_tag_is_found_wherever_the_pieces_of_the_search_end(blanks: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(harness, "_PIECE", 40)
    text = "x" * blanks + "\n  <file of='a\nb'>\n<system-reminder kind='c'>no human wrote this</system-reminder>Why?"
    assert "no human" not in words(text)
    assert words(text).endswith("Why?")


def test_no_search_for_tags_looks_through_more_than_a_piece_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    lengths: list[int] = []
    pattern = harness._TAG_AT_LINE

    class Watched:
        def finditer(self, text: str, begin: int, end: int) -> Iterator[re.Match[str]]:
            lengths.append(min(end, len(text)) - begin)
            return pattern.finditer(text, begin, end)

    monkeypatch.setattr(harness, "_TAG_AT_LINE", Watched())
    assert not is_marked("\n<f" * 170_000, shipped_marks())
    assert len(lengths) > 10
    assert max(lengths) < 20_000


def turn(*texts: str, agentic: bool = False, after_assistant: bool = True) -> list[str]:
    return human_texts(texts, shipped_marks(), agentic=agentic, after_assistant=after_assistant)


def test_the_content_behind_the_header_of_a_tools_answer_is_not_the_humans_if_it_is_a_part_of_its_own() -> None:
    header = "[read_file for 'a.py'] Result:"
    assert turn(header, "import a", "and now?") == ["", "", "and now?"]
    assert turn(header, header, "import a", "and now?") == ["", "", "", "and now?"]
    assert turn(f"{header}\nimport a", "and now?") == ["", "and now?"]
    # In one text with what follows, a human may have written it at the beginning of a chat.
    assert turn(f"{header}\nimport a", after_assistant=False) == [f"{header}\nimport a"]


def test_words_in_a_tools_answer_are_the_humans_only_where_the_harness_puts_them() -> None:
    header = "[write_to_file for 'a.py'] Result:"
    assert turn(header, "The user said no:\n<feedback>\nuse b\n</feedback>") == ["", "use b"]
    assert turn(header, "a\nb\nc\n<feedback>\nuse b\n</feedback>") == ["", ""]
    assert turn(header, "x" * 2000 + "<feedback>use b</feedback>") == ["", ""]
    assert turn(header, "<feedback>without an end") == ["", ""]


def test_words_in_a_block_are_the_humans_only_at_its_beginning() -> None:
    spoken = "The user sent a new message while you were working:\nstop\n\nThis is how Claude Code surfaces it."
    assert turn(f"<system-reminder>\n{spoken}\n</system-reminder>") == ["stop"]
    assert turn(f"<system-reminder>\nOf late: {spoken}\n</system-reminder>") == [""]


def test_a_system_message_in_the_middle_of_a_chat_may_hold_what_the_human_sent_meanwhile() -> None:
    wish, said = "Tidy the shop's database of customers", "The user sent a new message while you were working: stop"
    user = {"role": "user", "content": f"{wish} {'please ' * 20}"}
    for message, newest in ((said, "stop"), (f"Note. {said}", user["content"].strip())):
        messages = [user, {"role": "assistant", "content": "Working."}, {"role": "system", "content": message}]
        ask = extract(RouteQuery(messages), max_bytes=10_000)
        assert ask.first_and_last[-1] == newest
    # At the beginning it is a system prompt like any other.
    messages = [{"role": "system", "content": said}, user]
    assert extract(RouteQuery(messages), max_bytes=10_000).text == user["content"].strip()


def test_beside_a_request_every_closed_tag_at_the_beginning_of_a_line_is_a_block() -> None:
    text = "<brandNewTag>\na\n</brandNewTag>\n<userRequest>\nuse <b>\n</userRequest>\nplease"
    assert words(text) == "use <b>\n\nplease"
    assert words("<brandNewTag>\na\n</brandNewTag>\nhi") == "<brandNewTag>\na\n</brandNewTag>\nhi"
    assert (
        words("<brandNewTag>a</brandNewTag>\n<userRequest>\nno end")
        == "<brandNewTag>a</brandNewTag>\n<userRequest>\nno end"
    )


BEGIN, END = "--- Content from referenced files ---", "--- End of content ---"


def test_a_section_reaches_over_the_parts_of_a_turn_to_its_end() -> None:
    assert turn("see @a", f"\n{BEGIN}", "a = 1", f"\n{END}", "ok?") == ["see @a", "", "", "", "ok?"]
    assert turn(f"one\n{BEGIN}\na\n{END}\ntwo\n{BEGIN}\nb\n{END}") == ["one\n\ntwo"]
    without_end = ["see @a", f"\n{BEGIN}", "a = 1"]
    assert turn(*without_end) == without_end
    inside = f"the line {BEGIN} and {END} are what it writes"
    assert turn(inside) == [inside]


def test_a_mark_that_is_a_whole_text_is_none_inside_another() -> None:
    assert turn("<image name=[Image #1]>", "</image>", "what is it?") == ["", "", "what is it?"]
    assert turn("<image name=[Image #1]> what is it?") == ["<image name=[Image #1]> what is it?"]


def test_a_short_wish_does_not_refer_to_what_the_client_let_the_model_say() -> None:
    context, wish = "This is the Gemini CLI. We are setting up the context for our chat.", "Explain a.py"
    for said, judged in {"Got it. Thanks for the context!": wish, "Shall I?": f"Shall I?\n\n{wish}"}.items():
        chat = zip(("user", "assistant", "user"), (context, said, wish), strict=True)
        messages = [{"role": role, "content": content} for role, content in chat]
        assert extract(RouteQuery(messages), max_bytes=1000).text == judged


HALF_A_MEGABYTE = 500_000
ADVERSARIAL = {
    "blocks never closed": "<system-reminder>\n",
    "tags never ended": "\n<context ",
    "closings only": "</context>",
    "many small blocks": "<system-reminder>x</system-reminder>\n",
    "blocks on one line": "<system-reminder>x</system-reminder>",
    "blanks": " ",
    "tabs and brackets": "\t<",
    "line ends": "\n",
    "ticks": "`",
    "statements": "x = (;" + " " * 150 + "\n",
    "keywords": "import from class ",
    "headings": "# Context from my IDE setup:## My request for Codex:",
    "result headers": "[read_file for ",
    "headers of answers": "[a for b] Result: ",
    "requests": "<userRequest>a</userRequest>\n<b>",
    "sections": f"{BEGIN}\n{END}\n",
    "sections without an end": f"{BEGIN}\n",
    "words": "<system-reminder>The user sent a new message while you were working:",
    "signs of four bytes": "\N{GRINNING FACE}",
    "syllables": "\N{HIRAGANA LETTER GA}",
}


@pytest.mark.parametrize("unit", ADVERSARIAL.values(), ids=ADVERSARIAL.keys())
def test_half_a_megabyte_of_anything_is_read_in_linear_time(unit: str) -> None:
    text = (unit * (HALF_A_MEGABYTE // len(unit) + 1))[:HALF_A_MEGABYTE]
    chat = ("<system-reminder>a</system-reminder>Hi", "Yes?", text)
    messages = [{"role": role, "content": c} for role, c in zip(("user", "assistant", "user"), chat, strict=True)]
    started = time.thread_time()
    extract(RouteQuery(messages), max_bytes=10_000_000)
    # Measured below 0.1 s each; anything quadratic takes minutes.
    assert time.thread_time() - started < 2


@pytest.mark.parametrize("texts", [[f"\n{BEGIN}"] * 20_000, [BEGIN, END] * 20_000, ["[a] Result:"] * 50_000])
def test_many_parts_are_read_in_linear_time(texts: list[str]) -> None:
    started = time.thread_time()
    turn(*texts)
    assert time.thread_time() - started < 2


def test_tags_of_many_names_without_an_end_are_read_in_linear_time() -> None:
    text = "<userRequest>a</userRequest>\n" + "".join(f"<t{number}>\n" for number in range(50_000))
    started = time.thread_time()
    assert words(text).startswith("a\n<t0>")
    assert time.thread_time() - started < 2


def test_nested_blocks_are_read_in_linear_time() -> None:
    text = "<context>\n" * 25_000 + "</context>\n" * 25_000
    started = time.thread_time()
    words(text, agentic=True)
    assert time.thread_time() - started < 2
