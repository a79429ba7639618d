"""What the tests of the external processor send, and the names of those who answer."""

from __future__ import annotations

NAMES = ("mixtral-8x7b", "gpt-4-turbo")


def chat(text: str, **more: object) -> dict:
    return {"model": "elle/test", "messages": [{"role": "user", "content": text}], **more}
