"""Choose the key with which a candidate is asked, so that a key only goes to a host that it is meant for."""

from __future__ import annotations

import base64
import os
import re
import urllib.request
from collections.abc import Iterator
from urllib.parse import unquote, urlsplit

from probes.bounded.secrets import MASK, mask_secrets
from router.errors import UpstreamDeniedError
from router.policies.candidates.candidate import Candidate

#: The key of candidates without one. Servers of one's own often want none, but the SDK does.
NO_KEY = "none"

#: The domains, by the prefix of the model, that the key in a provider's usual variable is meant for.
_OWN_DOMAINS = {
    "anthropic": (".api.anthropic.com",),
    "azure": (".openai.azure.com", ".cognitiveservices.azure.com", ".services.ai.azure.com"),
    "openai": (".api.openai.com",),
}

#: The variables that hold the URL of Azure, and its key, as LiteLLM reads them. One of each is enough.
AZURE_BASES, AZURE_KEYS = ("AZURE_API_BASE", "AZURE_OPENAI_ENDPOINT"), ("AZURE_API_KEY", "AZURE_OPENAI_API_KEY")

#: The variables that hold a token of Azure in place of a key.
AZURE_TOKENS = ("AZURE_AD_TOKEN", "AZURE_OPENAI_AD_TOKEN")

#: Providers that find their credentials in other places than one variable: their machine, a file, an account.
OTHER_CREDENTIALS = frozenset(
    {"bedrock", "sagemaker", "sagemaker_chat", "sagemaker_nova", "vertex_ai", "vertex_ai_beta"}
)

#: How the names of variables end that hold secrets, and the fewest characters that such a secret has.
_SECRET_ENDINGS, _MIN_SECRET = ("KEY", "TOKEN", "SECRET", "PASSWORD", "CREDENTIALS"), 8

#: The credentials that candidates were sent, of which there are as many as operators have written down.
_SENT: set[str] = set()


def key_of(candidate: Candidate, base: str | None) -> str | None:
    """Return the key to send to a candidate at the URL `base`, or None to use the usual variable of its provider.

    The usual variable, such as OPENAI_API_KEY, is only for the provider's own hosts: at any other host a candidate that
    names no `api_key_env` gets `NO_KEY`. Raises UpstreamDeniedError if the variable that it names is not set.
    """
    if candidate.api_key_env is None:
        return None if is_providers_own(candidate, base) else NO_KEY
    # Mounted secrets end in a line feed often enough.
    value = os.environ.get(candidate.api_key_env, "").strip()
    if not value:
        error = UpstreamDeniedError(
            f"candidate {candidate.name!r} takes its key from the environment variable {candidate.api_key_env}, which "
            f"is not set where the router runs."
        )
        error.counts = False
        raise error
    note_sent(value)
    return value


def is_providers_own(candidate: Candidate, base: str | None) -> bool:
    """Return whether the usual variable of a candidate's provider holds a key that is meant for this URL."""
    provider = candidate.model.partition("/")[0]
    if base is None or provider in OTHER_CREDENTIALS:
        return True
    host = f".{(urlsplit(base).hostname or '').rstrip('.')}"
    return urlsplit(base).scheme == "https" and host.endswith(_OWN_DOMAINS.get(provider, ()))


def has_key(candidate: Candidate, base: str | None) -> bool:
    """Return whether a candidate may be asked with a key at this URL."""
    return candidate.api_key_env is not None or is_providers_own(candidate, base)


def leaked_variable(text: str) -> str | None:
    """Return the name of an environment variable whose value is a secret by its name and stands in the text."""
    return next((name for name, value in _secret_variables() if value in text), None)


def note_sent(*secrets: str) -> None:
    """Remember credentials that a candidate is sent, so that nobody is told them if it repeats them."""
    _SENT.update(secret for secret in secrets if secret != NO_KEY and secret)


def without_credentials(text: str) -> str:
    """Return a provider's words with `***` in place of our credentials, and of everything that looks like a key.

    Providers, and the proxies in front of them, repeat what they do not accept.
    """
    known = {*_SENT, *_secrets_of_proxies(), *(value for _, value in _secret_variables())}
    for secret in sorted(known, key=len, reverse=True):
        if len(secret) >= _MIN_SECRET:
            text = text.replace(secret, MASK)
        else:
            # Within a word so few letters are no secret, and a mask in each such word would leave nothing to read.
            text = re.sub(rf"(?<![^\W_]){re.escape(secret)}(?![^\W_])", MASK, text)
    return mask_secrets(text)


def forms_of_password(url: str) -> tuple[str, ...]:
    """Return everything by which the password in a URL is known: as it is, as it is written, and in a header."""
    parts = urlsplit(url)
    if not parts.password:
        return ()
    password = unquote(parts.password)
    pair = base64.b64encode(f"{unquote(parts.username or '')}:{password}".encode()).decode()
    return pair, pair.rstrip("="), password, parts.password


def _secrets_of_proxies() -> Iterator[str]:
    """Yield the passwords of the proxies that the environment names: those also repeat what they do not accept."""
    for proxy in urllib.request.getproxies().values():
        yield from forms_of_password(proxy if "://" in proxy else f"http://{proxy}")


def _secret_variables() -> Iterator[tuple[str, str]]:
    for name, value in os.environ.items():
        if name.upper().endswith(_SECRET_ENDINGS) and len(value.strip()) >= _MIN_SECRET:
            yield name, value.strip()
