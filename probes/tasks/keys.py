"""Define what the key of a task may be: text of 1 to 256 bytes that every door, record and artifact can carry."""

from __future__ import annotations

from hashlib import sha256

#: The longest key, in bytes of UTF-8.
MAX_KEY_BYTES = 256

#: The most tasks that one probe holds offsets of.
MAX_TASKS = 4096

#: A key that begins so is the digest of a system prompt, which the key does not reveal.
SYSTEM_PROMPT_PREFIX = "system-prompt:"


def key_fault(key: str) -> str | None:
    """Return what a key must be if it cannot be the key of a task, or None if it can."""
    # Characters are counted first: a key of many megabytes must cost nothing.
    if not key:
        return "hold some text, got none"
    if len(key) > MAX_KEY_BYTES:
        return f"be at most {MAX_KEY_BYTES} bytes long, got {len(key):,} characters"
    try:
        size = len(key.encode())
    except UnicodeEncodeError:
        return "be valid Unicode, got half of a surrogate pair"
    if size > MAX_KEY_BYTES:
        return f"be at most {MAX_KEY_BYTES} bytes long, got {size:,}"
    return None if key.isprintable() else "consist of printable characters on one line"


def system_prompt_key(system_prompt: str) -> str:
    """Return the key of the task that a system prompt stands for: a digest, which does not reveal it.

    `system_prompt_key("You sort mail.")` is `system-prompt:` and 64 hexadecimal digits.
    """
    return SYSTEM_PROMPT_PREFIX + sha256(system_prompt.encode(errors="surrogatepass")).hexdigest()
