"""What a candidate repeats of our credentials is told to nobody."""

from __future__ import annotations

import pytest

from router.answering.upstreams import candidate_keys
from router.answering.upstreams.candidate_keys import NO_KEY, note_sent, without_credentials


@pytest.fixture(autouse=True)
def nothing_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(candidate_keys, "_SENT", set())


def test_credentials_are_masked_whatever_they_look_like(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MISTRAL_API_KEY", "plain-words-of-mistral")
    note_sent("plain-words", "plain-words-and-more", NO_KEY, "")
    said = "got plain-words-and-more, plain-words, plain-words-of-mistral and sk-proj-aB3dE5gH7jK9aB3dE5; none of it."
    assert without_credentials(said) == "got ***, ***, *** and ***; none of it."


def test_other_words_stay_as_they_are() -> None:
    said = "max_tokens must be at most 4096 for gpt-4o-mini-2024-07-18, got 10,000."
    assert without_credentials(said) == said
