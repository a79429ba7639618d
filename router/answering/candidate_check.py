"""Find candidates that cannot be asked, before any is asked: keys that are not set, providers that are unknown."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence

from router.answering.upstreams import litellm_upstream
from router.answering.upstreams.candidate_keys import is_providers_own
from router.answering.upstreams.litellm_upstream import LiteLLMUpstream
from router.errors import DispatchNotInstalledError, UpstreamDeniedError
from router.policies.candidates.candidate import Candidate
from router.policies.rules import speaks_openai


async def problems_of(candidates: Sequence[Candidate], litellm: LiteLLMUpstream) -> list[str]:
    """Return a sentence for each candidate that cannot be asked on this machine, for example because its key is unset.

    Imports LiteLLM, which takes seconds, if a candidate needs it, and lets it build a plain request for each such
    candidate. Nothing is sent. If LiteLLM is not installed, such candidates are not checked.
    """
    found = []
    for candidate in candidates:
        variable = candidate.api_key_env
        if variable is not None and not os.environ.get(variable, "").strip():
            found.append(
                f"candidate {candidate.name!r} has no key: the environment variable {variable} is not set here."
            )
        elif speaks_openai(candidate):
            own = variable is None and is_providers_own(candidate, candidate.api_base)
            if own and not os.environ.get("OPENAI_API_KEY", "").strip():
                found.append(
                    f"candidate {candidate.name!r} has no key: it names no `api_key_env`, and OPENAI_API_KEY is not "
                    "set here."
                )
        else:
            try:
                await litellm_upstream.load()
                problem = await litellm.problem_of(candidate)
            except DispatchNotInstalledError:
                continue
            # A server that its owner runs often needs no key, so a missing key is no problem there. Azure is no such
            # server, and its URL is always given.
            own = candidate.api_base is not None and not candidate.model.startswith("azure/")
            if problem is not None and not (own and problem.kind is UpstreamDeniedError):
                found.append(problem.message)
    return found


def problems_here(candidates: Sequence[Candidate]) -> list[str]:
    """Return what `problems_of` does, in a program without an event loop."""

    async def check() -> list[str]:
        litellm = LiteLLMUpstream()
        try:
            return await problems_of(candidates, litellm)
        finally:
            await litellm.aclose()

    return asyncio.run(check())
