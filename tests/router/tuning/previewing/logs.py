"""Small logs of chats for the tests of `elle preview`, and a policy with prices of cached input."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from tests.prompts import CHATS, chat_text

SMALL = {"input_usd_per_million_tokens": 1, "output_usd_per_million_tokens": 2}
SMALL_CACHED = SMALL | {"cached_input_usd_per_million_tokens": 0.5}
LARGE = {
    "input_usd_per_million_tokens": 10,
    "output_usd_per_million_tokens": 20,
    "cached_input_usd_per_million_tokens": 1,
}

#: Output costs the same, so that the price of input and the cache decide.
EQUAL_SMALL = {"input_usd_per_million_tokens": 5, "output_usd_per_million_tokens": 30}
EQUAL_LARGE = LARGE | {"output_usd_per_million_tokens": 30}

#: A tool is called and answers, so that the next request goes on without a human.
TOOL_CALL = [
    {"role": "assistant", "content": None, "tool_calls": [{"id": "1", "type": "function", "function": {"name": "f"}}]},
    {"role": "tool", "tool_call_id": "1", "content": "42"},
]


def write_log(path: Path, *rows: Any) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


def session_rows() -> list[dict[str, Any]]:
    """Return a log of mixed single requests and of three interleaved sessions with a tool loop and switches."""
    easy, hard, law = chat_text("code"), chat_text("systems programming"), chat_text("law")

    def chat(*said: str) -> list[dict[str, Any]]:
        # Humans speak first, and the assistant's answers stand between.
        roles = ["user", "assistant"] * len(said)
        return [{"role": role, "content": text} for role, text in zip(roles, said, strict=False)]

    rows: list[dict[str, Any]] = [{"messages": list(messages)} for label, messages in CHATS.items() if label != "image"]
    rows += [
        {"session_id": "a", "messages": chat(hard)},
        {"session_id": "b", "messages": chat(easy)},
        {"session_id": "a", "messages": [*chat(hard), *TOOL_CALL]},
        {"session_id": "b", "messages": chat(easy, "def f(): ...", hard)},
        {"session_id": "a", "messages": chat(easy)},
        {"session_id": "c", "messages": chat(easy), "max_tokens": 5},
        {"session_id": "b", "messages": chat(easy, "def f(): ...", hard, "It reorders the stores.", easy)},
        {"session_id": "c", "messages": chat(law)},
        {"session_id": "c", "messages": chat(easy), "tools": [{"type": "function", "function": {"name": "f"}}]},
    ]
    return [row | {"timestamp": 1_760_000_000 + number} for number, row in enumerate(rows)]


def real_policy(folder: Path, **changes: Any) -> Path:
    """Write a policy on the probe for Mixtral and GPT-4, with tools, and with prices of cached input."""
    names = {"small": "Mixtral-8x7B-Instruct-v0.1", "large": "gpt-4-1106-preview"}
    policy = {
        "schema": "elle.policy/1",
        "name": "previewed",
        "probe": "builtin:mixtral-gpt4",
        "candidates": [
            {
                "name": name,
                "model": f"openai/{name}",
                "probe_model": names[name],
                "api_base": "canned",
                "prices": prices,
                "capabilities": ["text", "tools"],
            }
            for name, prices in (("small", EQUAL_SMALL), ("large", EQUAL_LARGE))
        ],
        "rule": {"kind": "gain", "thresholds": [0.15]},
        "safe_default": "large",
        "abstain_above_leverage": None,
    }
    path = folder / "previewed.yaml"
    path.write_text(yaml.safe_dump(policy | changes), "utf-8")
    return path
