"""Refuse credentials in a policy file where they would be shown, and show a URL without the credential in it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

from probes.bounded.files import shown
from probes.bounded.secrets import holds_secret, mask_secrets

#: The `api_base` of a candidate that the built-in upstream on loopback answers with canned text.
CANNED_UPSTREAM = "canned"

#: The last part of the path to a value that may be a secret. Error messages do not show such a value.
SECRET_KEYS = frozenset({("api_base",), ("api_key_env",)})

#: Keys of a policy file whose values may be digests, which look like keys of some providers.
_KEYS_OF_DIGESTS = frozenset({"version", "description", "probe", "certificate"})

#: The longest name of an environment variable, in characters. A longer one is taken for a key.
_MAX_NAME = 64

# A name is split at its underscores. A part is taken for a piece of a key if it is this long and holds a digit, or this
# long and mixes both cases, or this long whatever it holds. Names of variables have no such parts.
_MIN_KEY_PART_WITH_DIGIT, _MIN_KEY_PART_IN_BOTH_CASES, _MIN_KEY_PART = 12, 20, 33


def check_key_variable(name: str) -> str:
    """Return the name of an environment variable unchanged. Raise ValueError if it may be a key instead of a name.

    A key that was written where its variable's name belongs would be served to everybody who asks for the policy. The
    error message does not show it.
    """
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name, re.ASCII) or len(name) > _MAX_NAME or _looks_like_key(name):
        raise ValueError(
            "must be the name of the environment variable that holds the key, such as OPENAI_API_KEY; the value is not "
            "shown, in case it is the key itself. Export the key under a name of letters, digits and underscores, at "
            f"most {_MAX_NAME} characters, and write that name"
        )
    return name


def _looks_like_key(name: str) -> bool:
    for part in name.split("_"):
        has_digit = any(character.isdigit() for character in part)
        both_cases = part != part.upper() and part != part.lower()
        if (
            len(part) >= _MIN_KEY_PART
            or (len(part) >= _MIN_KEY_PART_WITH_DIGIT and has_digit)
            or (len(part) >= _MIN_KEY_PART_IN_BOTH_CASES and both_cases)
        ):
            return True
    return holds_secret(name) or name.lower().startswith(("sk_", "pk_", "gsk_", "hf_", "xai_", "ghp_", "r8_"))


def check_holds_no_secret(data: Any) -> None:
    """Raise ValueError if a key or a value of a policy file seems to be an API key. The message does not show it.

    Everything in a policy but `api_base` is served to everybody who asks for it, and stands in logs and metrics. The
    two `SECRET_KEYS` have checks of their own.
    """
    for path, text in _texts_in(data, ()):
        if path[-1:] not in SECRET_KEYS and holds_secret(text, digests=not _KEYS_OF_DIGESTS.isdisjoint(path)):
            place = ".".join(shown(part) for part in path) or "the file"
            raise ValueError(
                f"{place} seems to hold an API key, or another secret; it is not shown here, and everybody may read "
                "what a policy holds. Take it out, replace the key at its provider if anybody has seen this file, and "
                "export it in an environment variable whose name you write in api_key_env"
            )


def _texts_in(value: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], str]]:
    """Yield each text of plain data with its path: values, and keys, whose path is that of their mapping."""
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from ((path, key),) if isinstance(key, str) else ()
            yield from _texts_in(inner, (*path, str(key)))
    elif isinstance(value, list | tuple):
        for index, inner in enumerate(value):
            yield from _texts_in(inner, (*path, str(index)))


def check_model(model: str) -> str:
    """Return a LiteLLM model string unchanged. Raise ValueError if it names no provider or no model.

    For example `openai/gpt-4o` and `openai//models/mine` pass, and `openai/` does not.
    """
    if not model.isprintable() or model != model.strip():
        raise ValueError("must hold no line ends or control characters, and no blanks around it")
    provider, slash, name = model.partition("/")
    if not provider or (slash and not name.strip("/ ")):
        raise ValueError("must name a provider and a model with a slash between them, such as openai/gpt-4o")
    return model


def check_base(base: str) -> str:
    """Return the URL of a provider, or `canned`, unchanged. Raise ValueError if it is neither.

    The error message does not show the value, because a URL may hold a password.
    """
    if base == CANNED_UPSTREAM:
        return base
    try:
        parts = urlsplit(base)
        is_url = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_url = False
    # What follows a `#` is never sent, so that nothing could stand behind it.
    if not is_url or "#" in base or any(character.isspace() for character in base):
        raise ValueError(
            "must be a URL that begins with http:// or https:// and names a host, without a #, such as "
            f"http://127.0.0.1:8000/v1, or {CANNED_UPSTREAM}; the value is not shown, in case it holds a password"
        )
    return base


def host_of(base: str) -> str:
    """Return the host of a provider's URL, or an empty text if it names none."""
    return urlsplit(base).hostname or ""


def shown_base(base: str | None) -> str | None:
    """Return the URL of a provider with user, password, query and keys in its path replaced by `***`, to be shown."""
    if base is None or base == CANNED_UPSTREAM:
        return base
    parts = urlsplit(base)
    host = parts.netloc.rpartition("@")[2]
    netloc = f"***@{host}" if "@" in parts.netloc else host
    shown_parts = parts._replace(netloc=netloc, query="***" if parts.query else "", fragment="")
    return mask_secrets(shown_parts.geturl())
