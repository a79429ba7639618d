"""The text to judge and the needs that are read from chat bodies of every shape."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from probes.encoders.exported import load_exported_encoder
from probes.encoders.spec import MINILM_L6
from router.asking.ask import TOKENS_PER_IMAGE, Ask, extract
from router.errors import InvalidRequestError
from router.values import Capability, RouteQuery


def ask_of(*messages: Any, **parameters: Any) -> Ask:
    return extract(RouteQuery(messages, parameters=parameters), max_bytes=30_000)


def user(content: Any) -> dict[str, Any]:
    return {"role": "user", "content": content}


def test_a_single_prompt_is_judged_character_for_character() -> None:
    assert ask_of(user("  What is 2 + 2?\n")).text == "What is 2 + 2?"


def test_the_system_prompt_is_not_judged() -> None:
    assert ask_of({"role": "system", "content": "Be brief."}, user("Hello")).text == "Hello"


def said(text: str | None) -> dict[str, Any]:
    return {"role": "assistant", "content": text}


def test_a_short_turn_is_judged_with_the_opening_and_with_what_it_answers() -> None:
    ask = ask_of(user("Prove Fermat's little theorem."), said("By induction?"), user("go ahead"))
    assert ask.text == "Prove Fermat's little theorem.\n\nBy induction?\n\ngo ahead"


def test_a_short_turn_after_a_silent_assistant_is_judged_with_the_human_turn_before() -> None:
    ask = ask_of(user("Prove it."), said("How?"), user("By induction."), said(None), user("go on"))
    assert ask.text == "Prove it.\n\nBy induction.\n\ngo on"


def test_a_longer_turn_is_judged_with_the_opening_alone() -> None:
    newest = "Now prove it by induction on n, " + "and name every step that you take, " * 2 + "please."
    assert ask_of(user("Prove it."), said("How?"), user(newest)).text == f"Prove it.\n\n{newest}"


@pytest.mark.parametrize(
    ("said_before", "opening", "reference"),
    [
        ("\N{EURO SIGN}" * 200, "\N{EURO SIGN}" * 100, "\N{EURO SIGN}" * 75),
        ("x" * 600, "x" * 500, "x" * 375),
        ("\u4e2d" * 200, "\u4e2d" * 100, "\u4e2d" * 75),
        ("word " * 200, ("word " * 100).strip(), ("word " * 75).strip()),
        ("a" + " " * 5000 + "z", "a" + " " * 5000 + "z", "z"),
    ],
)
def test_the_opening_and_the_reference_are_cut_to_a_number_of_tokens(
    said_before: str, opening: str, reference: str
) -> None:
    ask = ask_of(user(said_before), said(said_before), user("ja"))
    found = ask.text.split("\n\n")
    assert [part.strip() for part in found] == [opening, reference, "ja"]


@pytest.mark.usefixtures("_real_encoder")
@pytest.mark.parametrize(
    "words",
    [
        "The tenant keeps the garden and the stairs in good order, at his own expense. ",
        "Арендатор содержит сад и лестницу в порядке. ",
        "承租人应当保持花园和楼梯的整洁",
        "for(i=0;i<n;++i){a[i]=(b[i]+c[i])*d[i];if(!a[i])return x_1;} ",
        "1234567890 3.14159265358979 ",
    ],
    ids=["English", "Russian", "Chinese", "code", "digits"],
)
def test_the_encoder_reads_a_short_turn_whole_after_opening_and_reference(words: str) -> None:
    ask = ask_of(user(words * 100), said(words * 100), user("go ahead"))
    encoder = load_exported_encoder(MINILM_L6)
    # At its limit it would have been cut.
    assert 100 < len(encoder.tokenize(ask.text)) < MINILM_L6.max_tokens


def test_a_chat_without_a_human_is_judged_by_its_other_text() -> None:
    assert ask_of({"role": "system", "content": "Report."}, said("Done.")).text == "Report.\nDone."
    ask = ask_of({"role": "tool", "content": "42"})
    assert (ask.text, ask.in_tool_loop) == ("42", False)


def test_a_picture_alone_opens_a_tool_loop_as_words_do() -> None:
    picture = user([{"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}])
    called = {"role": "assistant", "content": None, "tool_calls": [{"id": "1", "function": {"name": "f"}}]}
    found = {"role": "tool", "tool_call_id": "1", "content": "42"}
    assert ask_of(picture, called, found).in_tool_loop
    assert not ask_of(picture).in_tool_loop


def test_an_answer_in_sound_needs_a_candidate_with_audio() -> None:
    assert ask_of(user("Hi"), modalities=["text", "audio"]).needs == {Capability.AUDIO}
    assert ask_of(user("Hi"), modalities=["text"]).needs == frozenset()


def test_the_content_of_tool_results_and_calls_counts_as_input() -> None:
    result = {"type": "tool_result", "tool_use_id": "1", "content": "x" * 400}
    assert ask_of(user("Hi"), user([result])).input_tokens_estimate == 101


def test_an_item_of_an_unknown_type_without_a_role_is_refused() -> None:
    with pytest.raises(InvalidRequestError, match="role must be one of"):
        ask_of({"type": "riddle", "text": "x"})


def test_parts_are_flattened_and_images_need_a_candidate_that_sees() -> None:
    image = {"type": "image_url", "image_url": {"url": "https://example.org/x.png"}}
    ask = ask_of(user([{"type": "text", "text": "What is this?"}, image]))
    assert ask.text == "What is this?"
    assert ask.needs == {Capability.IMAGE}
    assert ask.input_tokens_estimate == 4 + TOKENS_PER_IMAGE


def test_tools_and_json_schema_are_needs() -> None:
    ask = ask_of(user("x"), tools=[{"type": "function"}], response_format={"type": "json_schema"})
    assert ask.needs == {Capability.TOOLS, Capability.JSON_SCHEMA}


def test_unknown_parts_are_named() -> None:
    assert ask_of(user([{"type": "hologram"}])).unknown_parts == ("hologram",)


def test_an_assistant_message_may_have_no_content() -> None:
    calls = [{"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}]
    ask = ask_of(
        user("x"), {"role": "assistant", "content": None, "tool_calls": calls}, {"role": "tool", "content": "1"}
    )
    assert ask.text == "x"


@pytest.mark.parametrize(
    ("messages", "message"),
    [
        ((), "at least one message"),
        ((user(""),), "some text"),
        ((user("  \n "),), "some text"),
        ((user(3),), r"messages\[0\].content must be text or a list"),
        ((user([{"text": "no type"}]),), r"content\[0\] must be an object with a `type`"),
        ((user([{"type": "text", "text": 5}]),), "must be text, got a number"),
        (("hello",), r"messages\[0\] must be an object, got a text"),
        (({"role": "robot", "content": "x"},), "role must be one of"),
        ((user("x" * 30_001),), "at most 30,000 bytes of text, got 30,001"),
        ((user("bad \ud800"),), "valid Unicode"),
        ((user([{"type": "tool_result", "content": [{"type": "text", "text": 5}]}]),), "must be text, got a number"),
        (({"role": ["user"], "content": "x"},), "role must be one of"),
    ],
)
def test_a_chat_that_cannot_be_judged_is_refused_with_the_reason(messages: tuple[Any, ...], message: str) -> None:
    with pytest.raises(InvalidRequestError, match=message) as caught:
        ask_of(*messages)
    assert caught.value.field is not None


LEAVES = st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=5) | st.sampled_from(["text", "image"])
KEYS = st.sampled_from(["type", "role", "text", "content", "source", "output", "data", "tool_calls"])
JSON = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=12,
)
KINDS = st.sampled_from(["text", "tool_result", "tool_use", "thinking", "document", "x_call", "function_call_output"])
FIELDS = {"text": JSON, "content": JSON, "source": JSON, "output": JSON, "input": JSON}
PARTS = st.fixed_dictionaries({"type": KINDS}, optional=FIELDS)
ROLES = st.sampled_from(["user", "assistant", "tool", ""])
MESSAGES = st.fixed_dictionaries(
    {"content": st.lists(PARTS, max_size=3) | JSON},
    optional={"role": ROLES, "type": KINDS, "output": JSON, "tool_calls": JSON},
)


@given(
    messages=st.lists(MESSAGES | JSON, max_size=4),
    parameters=st.dictionaries(
        st.sampled_from(["tools", "system", "response_format", "text", "output_config", "max_tokens", "metadata"]), JSON
    ),
)
def test_any_body_is_read_or_refused_with_the_field_at_fault(messages: list[Any], parameters: dict[str, Any]) -> None:
    try:
        ask = extract(RouteQuery(messages, parameters=parameters), max_bytes=1000)
    except InvalidRequestError:
        return
    assert ask.text or ask.needs or ask.unknown_parts
    assert ask.input_tokens_estimate >= 0


@pytest.mark.parametrize("value", [-5, 1.5, "many", "1.5", "", "9" * 30, True, float("inf"), float("nan"), [1]])
def test_an_output_bound_that_is_no_whole_number_in_range_is_refused(value: Any) -> None:
    with pytest.raises(InvalidRequestError, match="max_tokens must be a whole number"):
        ask_of(user("x"), max_tokens=value)
