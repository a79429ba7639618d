"""The steps of `elle validate`: which candidates cannot be asked on this machine, and the answer as JSON values."""

from __future__ import annotations

from typing import Any

from router.answering.candidate_check import problems_here
from router.policies.certificate import is_expired
from router.policies.loading import ServedPolicy, missing_keys


def what_keeps_from_answering(policy: ServedPolicy) -> tuple[list[str], list[str]]:
    """Return the variables of keys that are not set here, and a sentence for each other candidate with a problem."""
    unset = missing_keys(policy)
    # A candidate whose key is missing cannot answer either, and is listed by the name of the variable already.
    others = tuple(one for one in policy.rules.file.candidates if one.api_key_env not in unset)
    return unset, problems_here(others)


def validation(policy: ServedPolicy, unset: list[str], problems: list[str]) -> dict[str, Any]:
    """Return the answer of `elle validate --json`, except for whether the candidates were checked."""
    return {
        "valid": True,
        "policy": policy.ref.name,
        "version": policy.ref.version,
        "digest": policy.ref.digest,
        "candidates": list(policy.rules.file.names),
        "probe": policy.probe_ref.digest if policy.probe_ref else None,
        "unset_key_variables": unset,
        "candidates_that_cannot_answer": problems,
        "profiles": [served.ref.name for served in policy.profiles()],
        "certificate": policy.certificate.model_dump(mode="json") if policy.certificate else None,
        "certificate_expired": is_expired(policy.certificate) if policy.certificate else None,
    }
