"""Say why LiteLLM cannot ask a candidate as it is set up, with the names of the settings that are missing."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import re

from router.answering.upstreams.candidate_keys import (
    AZURE_BASES,
    AZURE_KEYS,
    AZURE_TOKENS,
    OTHER_CREDENTIALS,
    is_providers_own,
)
from router.answering.upstreams.litellm_errors import Problem, root_of
from router.answering.upstreams.litellm_import import import_litellm
from router.errors import UpstreamDeniedError, UpstreamNotFoundError
from router.policies.candidates.candidate import Candidate

#: Providers that need no key in a variable.
_NO_USUAL_KEY = OTHER_CREDENTIALS | {"ollama", "ollama_chat"}

#: Variables that hold a credential of Azure. One of them is enough.
_AZURE_CREDENTIALS = (
    *AZURE_KEYS, *AZURE_TOKENS, "AZURE_CLIENT_ID", "AZURE_USERNAME", "AZURE_CREDENTIAL", "AZURE_FEDERATED_TOKEN_FILE",
)  # fmt: skip

#: Packages that LiteLLM needs for a provider and does not bring.
_PACKAGES = {"vertex_ai": "google.auth", "vertex_ai_beta": "google.auth", "bedrock": "boto3", "sagemaker": "boto3"}

#: The name of an environment variable in LiteLLM's words. "{LLM_PROVIDER}" there stands for the provider.
_VARIABLE = re.compile(r"\b[A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+\b")
_MOST_VARIABLES = 6


def problem_of(candidate: Candidate) -> Problem | None:
    """Return why LiteLLM cannot ask a candidate, as far as its table of providers tells; None if no problem is known.

    Imports LiteLLM, which takes seconds. Raises DispatchNotInstalledError.
    """
    litellm = import_litellm()
    provider = provider_of(candidate.model, candidate.api_base)
    if provider is None:
        return Problem(
            UpstreamNotFoundError,
            f"candidate {candidate.name!r} names no provider that LiteLLM knows: its model is {candidate.model!r}, and "
            f"must begin with one, as in 'openai/gpt-4o'.",
        )
    if provider == "azure":
        return _problem_of_azure(candidate)
    package = _PACKAGES.get(provider)
    if package is not None and not _is_installed(package):
        return Problem(UpstreamNotFoundError, f"{_cannot_be_asked(candidate)}: {_not_installed(package)}.")
    if candidate.api_key_env is not None or provider in _NO_USUAL_KEY:
        return None
    missing = litellm.validate_environment(model=candidate.model)["missing_keys"]
    if not missing:
        return None
    return Problem(
        UpstreamDeniedError,
        f"candidate {candidate.name!r} has no key: the environment variable {' or '.join(missing)} is not set on the "
        f"service. Set it, or name another one in the candidate's `api_key_env`.",
    )


def import_for(candidate: Candidate) -> None:
    """Import the package that a candidate's provider needs besides LiteLLM, and LiteLLM's own modules for it.

    Otherwise its first call would.
    """
    provider = provider_of(candidate.model, candidate.api_base) or ""
    with contextlib.suppress(ImportError):
        if provider in _PACKAGES:
            importlib.import_module(_PACKAGES[provider])
        import_litellm().get_supported_openai_params(model=candidate.model)


def _problem_of_azure(candidate: Candidate) -> Problem | None:
    missing = []
    if candidate.api_base is None and not any(map(os.environ.get, AZURE_BASES)):
        missing.append("no URL (set the environment variable AZURE_API_BASE on the service, or write `api_base`)")
    if candidate.api_key_env is None:
        if not is_providers_own(candidate, candidate.api_base):
            missing.append("no key (name its variable in `api_key_env`: AZURE_API_KEY is only sent to hosts of Azure)")
        elif not any(map(os.environ.get, _AZURE_CREDENTIALS)):
            missing.append("no key (set AZURE_API_KEY on the service, or name another variable in `api_key_env`)")
    if not missing:
        return None
    return Problem(UpstreamDeniedError, f"candidate {candidate.name!r} has {' and '.join(missing)}.")


def provider_of(model: str, base: str | None) -> str | None:
    """Return the provider that LiteLLM takes a model's name for, or None if it knows none.

    A provider that wants a login by a person is returned as well.
    """
    litellm = import_litellm()
    try:
        _, provider, _, _ = litellm.get_llm_provider(model=model, api_base=base)
    except litellm.exceptions.BadRequestError:
        prefix = model.partition("/")[0]
        return prefix if "/" in model and prefix in litellm.provider_list else None
    return str(provider)


def problem_in_rehearsal(candidate: Candidate, error: BaseException) -> Problem:
    """Return the problem of a candidate for which LiteLLM raised this error instead of building a plain request."""
    return Problem(UpstreamNotFoundError, f"{_cannot_be_asked(candidate)}: {_why(candidate, error)}.")


def _why(candidate: Candidate, error: BaseException) -> str:
    """Return what is missing. Of LiteLLM's own words only names of variables are repeated: others may hold a key."""
    root, words = root_of(error), str(error).partition("\nTraceback")[0]
    if isinstance(root, ImportError):
        return _not_installed(root.name or "that its provider needs")
    if "Unmapped LLM provider" in words:
        return "LiteLLM has no chat API for its provider"
    if "login" in words:
        return "its provider wants a login by a person on this machine"
    wanted = _settings_in(words.replace("{LLM_PROVIDER}", candidate.model.partition("/")[0].upper()))
    if wanted:
        return f"LiteLLM asks for {' or '.join(wanted)}"
    if "key" in words.lower():
        return "LiteLLM asks for a key; name its variable in `api_key_env`"
    if "credentials" in words.lower():
        return "LiteLLM finds no credentials of its provider on this machine"
    return (
        "LiteLLM cannot build a request for it; compare the model's name and its settings with LiteLLM's page of the "
        "provider"
    )


def _settings_in(words: str) -> list[str]:
    """Return the settings that LiteLLM's words name: `api_base`, and variables that are not set."""
    values = "\n".join([*os.environ, *os.environ.values()])
    names = (name for name in dict.fromkeys(_VARIABLE.findall(words)) if not name.endswith("_ADMIN_KEY"))
    unset = [name for name in names if name not in values]
    is_url = re.search(r"api.base|base url", words, re.IGNORECASE) is not None
    return [*(["`api_base`"] if is_url else []), *unset[:_MOST_VARIABLES]]


def _is_installed(package: str) -> bool:
    try:
        return importlib.util.find_spec(package) is not None
    except ModuleNotFoundError:
        return False


def _not_installed(package: str) -> str:
    return f"the package {package} is not installed"


def _cannot_be_asked(candidate: Candidate) -> str:
    return f"{candidate.described} cannot be asked as it is set up"
