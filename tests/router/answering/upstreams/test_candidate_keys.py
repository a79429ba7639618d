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


@pytest.mark.parametrize(
    ("key", "said", "told"),
    [
        ("e", "Bearer e: the key e is refused.", "Bearer ***: the key *** is refused."),
        ("e", "got 'e' (e) and key=e", "got '***' (***) and key=***"),
        ("ab", "the table of ab_c", "the table of ***_c"),
        ("+", "1+1 and a + b", "1+1 and a *** b"),
        ("test", "the latest test", "the latest ***"),
    ],
)
def test_a_key_of_few_letters_is_masked_as_a_word_and_leaves_other_words_readable(
    key: str, said: str, told: str
) -> None:
    note_sent(key)
    assert without_credentials(said) == told


@pytest.mark.parametrize("proxy", ["http://me:plain%20words@proxy:1", "me:plain%20words@proxy:1"])
def test_the_password_of_a_proxy_is_masked_in_what_the_proxy_says(monkeypatch: pytest.MonkeyPatch, proxy: str) -> None:
    monkeypatch.setenv("https_proxy", proxy)
    said = "refused plain words (plain%20words), bWU6cGxhaW4gd29yZHM=, bWU6cGxhaW4gd29yZHM"
    assert without_credentials(said) == "refused *** (***), ***, ***"


def test_other_words_stay_as_they_are() -> None:
    said = "max_tokens must be at most 4096 for gpt-4o-mini-2024-07-18, got 10,000."
    assert without_credentials(said) == said
