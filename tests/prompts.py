"""Chats of many kinds, from small talk to an image, for tests that need prompts and do not care which."""

from __future__ import annotations

from collections.abc import Mapping

from router.cli.demo import PIXEL
from router.values import Message


def _one(text: str) -> tuple[Message, ...]:
    return ({"role": "user", "content": text},)


CHATS: Mapping[str, tuple[Message, ...]] = {
    "small talk": _one("Hi there! How is your day going?"),
    "everyday fact": _one("What is the capital of Australia?"),
    "rewrite": _one("Please make this sentence friendlier: Send me the report by noon."),
    "school arithmetic": _one(
        "A pen costs 3 dollars and a book 12. Ann buys four pens and two books. How much in all?"
    ),
    "graduate mathematics": _one(
        "Let K be the splitting field of x^4 - 2 over the rationals. Determine the Galois group of K over"
        " Q, list its subgroups, and give the corresponding intermediate fields."
    ),
    "competition mathematics": _one(
        "How many ordered triples (a, b, c) of positive integers satisfy a + b + c = 60 such that a "
        "divides b and b divides c? Show your reasoning."
    ),
    "code": _one("Write a Python function that returns the n-th Fibonacci number using memoisation."),
    "systems programming": _one(
        "Our lock-free queue in C++ loses elements under contention on ARM but not on x86. The producer "
        "uses memory_order_relaxed for the tail store. Explain what goes wrong and fix it."
    ),
    "law": _one(
        "A tenant stops paying rent because the heating has failed for two weeks. Which remedies does each side have?"
    ),
    "German": _one("Erkläre mir bitte in zwei Sätzen, warum der Himmel blau ist."),
    "multi-turn chat": (
        {"role": "system", "content": "You are a helpful assistant."},
        {"role": "user", "content": "I want to prove that the square root of 2 is irrational."},
        {"role": "assistant", "content": "Assume it equals p/q in lowest terms. What follows for p squared?"},
        {"role": "user", "content": "Go ahead and finish the proof."},
    ),
    "image": (
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "What is in this picture?"},
                {"type": "image_url", "image_url": {"url": PIXEL}},
            ],
        },
    ),
}


def chat_text(label: str) -> str:
    """Return the first message of a chat."""
    return str(CHATS[label][0]["content"])
