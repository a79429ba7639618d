"""Tests of finding the ask in what LiteLLM wraps around it for a decision model."""

from __future__ import annotations

import pytest

from router.errors import InvalidRequestError
from router.gateways.http.decision_models.state import chat_in_state


def said(*pairs: tuple[str, str]) -> tuple[dict[str, str], ...]:
    return tuple({"role": role, "content": text} for role, text in pairs)


SYSTEM = "\nCaller system prompt, quoted as task context:\nBe brief.\nAlways."
TURNS = "\nRecent conversation (context only, do not classify these):\n"
LENGTH = "\nConversation so far: ~12 tokens across the request"
ASK = "\nClassify this message:\n"


@pytest.mark.parametrize(
    ("state", "chat"),
    [
        ("hello", said(("user", "hello"))),
        (f"{ASK}hello\nthere", said(("user", "hello\nthere"))),
        (f"{SYSTEM}\n{ASK}hello", said(("system", "Be brief.\nAlways."), ("user", "hello"))),
        (
            f"{TURNS}[1] one\n[2] two\nlines\n{LENGTH}\n{ASK}go on",
            said(("user", "one"), ("user", "two\nlines"), ("user", "go on")),
        ),
        (
            f"{SYSTEM}\n{TURNS}[1] user: one\n[2] assistant: 1. a\n[7] not a turn\n{LENGTH}\n{ASK}go on",
            said(
                ("system", "Be brief.\nAlways."),
                ("user", "one"),
                ("assistant", "1. a\n[7] not a turn"),
                ("user", "go on"),
            ),
        ),
        # A prompt that holds the mark itself is judged whole.
        (f"{ASK}prove it{ASK}hi", said(("user", f"prove it{ASK}hi"))),
        ("System prompt:\nBe brief.\n\nRequest:\nhello", said(("system", "Be brief."), ("user", "hello"))),
        ([{"role": "user", "content": "hello"}], said(("user", "hello"))),
        ({"messages": [{"role": "user", "content": "hello"}]}, said(("user", "hello"))),
        ({"ticket": "it burns"}, said(("user", '{"ticket": "it burns"}'))),
    ],
)
def test_the_chat_is_found(state: object, chat: tuple[dict[str, str], ...]) -> None:
    assert chat_in_state(state) == chat


@pytest.mark.parametrize("state", [None, 7, [], {}, True, "", " \n"])
def test_a_state_without_text_is_refused(state: object) -> None:
    with pytest.raises(InvalidRequestError, match="state must be"):
        chat_in_state(state)
