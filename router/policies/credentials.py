"""Where a candidate's credentials may stand in a policy file, and how to show it without them. Pure."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

#: `api_base` of a candidate that is answered by the built-in loopback upstream with canned text.
CANNED = "canned"

#: Ends of places in a policy file of which no error shows what stands there.
SECRET_PLACES = frozenset({("api_base",), ("api_key_env",)})

#: Longest name of an environment variable that is believed to be one.
_MAX_NAME = 64

#: Parts of a name between underscores that no name has: long and with digits in it, or long and in both cases.
_KEY_LIKE_DIGITS, _KEY_LIKE_CASES, _KEY_LIKE_LETTERS = 12, 20, 32


def check_key_variable(name: str) -> str:
    """Return the name of an environment variable. Raises ValueError, which does not show it, for what may be a key.

    A key that was written where its variable's name belongs would be served to everybody who asks for the policy.
    """
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name, re.ASCII) or len(name) > _MAX_NAME or _looks_like_key(name):
        raise ValueError(
            "must be the name of the environment variable that holds the key, such as OPENAI_API_KEY; what stands "
            "there is not shown, in case it is the key itself. Export the key under a name of letters, digits and "
            f"underscores, at most {_MAX_NAME}, and write that name"
        )
    return name


def _looks_like_key(name: str) -> bool:
    for part in name.split("_"):
        has_digit = any(letter.isdigit() for letter in part)
        both_cases = part != part.upper() and part != part.lower()
        if (len(part) >= _KEY_LIKE_DIGITS and has_digit) or (len(part) >= _KEY_LIKE_CASES and both_cases):
            return True
        if len(part) > _KEY_LIKE_LETTERS:
            return True
    return name.lower().startswith(("sk_", "pk_", "gsk_", "hf_", "xai_", "ghp_", "r8_"))


def check_base(base: str) -> str:
    """Return the URL of a provider, or `canned`. Raises ValueError, which shows nothing of it, for what is no URL."""
    if base == CANNED:
        return base
    try:
        parts = urlsplit(base)
        found = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        found = False
    if not found or any(letter.isspace() for letter in base):
        raise ValueError(
            "must be a URL that begins with http:// or https:// and names a host, such as http://127.0.0.1:8000/v1, or "
            f"{CANNED}; what stands there is not shown, in case it holds a password"
        )
    return base


def shown_base(base: str | None) -> str | None:
    """Return the URL of a provider without what is secret in it: user, password and the values of its query."""
    if base is None or base == CANNED:
        return base
    parts = urlsplit(base)
    host = parts.netloc.rpartition("@")[2]
    netloc = f"***@{host}" if "@" in parts.netloc else host
    return parts._replace(netloc=netloc, query="***" if parts.query else "", fragment="").geturl()
