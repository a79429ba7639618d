"""The steps of `elle validate`: which candidates cannot be asked on this machine, and the answer as JSON values."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from probes.bounded.files import shown
from router.answering.candidate_check import problems_here
from router.policies.certificate import is_expired
from router.policies.loading import ServedPolicy, missing_keys

#: The largest number of characters of parameters that a line shows.
_MOST_SHOWN = 300


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
        "params": {one.name: one.params.model_dump(mode="json") for one in policy.rules.file.candidates},
        "refused_parameters": dict(zip(policy.rules.file.names, map(sorted, policy.rules.refused), strict=True)),
        "probe": policy.probe_ref.digest if policy.probe_ref else None,
        "unset_key_variables": unset,
        "candidates_that_cannot_answer": problems,
        "profiles": [served.ref.name for served in policy.profiles()],
        "certificate": policy.certificate.model_dump(mode="json") if policy.certificate else None,
        "certificate_expired": is_expired(policy.certificate) if policy.certificate else None,
        "explore": policy.rules.file.explore.model_dump(mode="json") if policy.rules.file.explore else None,
    }


def trials_in_words(policy: ServedPolicy, canary: Path | None) -> list[str]:
    """Return what is tried with this policy: whether it explores, and which part it has in the canary of a file.

    Raises ConfigError if the file is no canary.
    """
    lines = []
    if explores := policy.rules.file.explore:
        lines.append(
            f"It explores: {explores.share:.1%} of its decisions go to another eligible candidate, for at most "
            f"{explores.usd_per_day:g} USD a day."
        )
    if canary is not None:
        from router.rollout.canary_file import read_canary

        found = read_canary(canary).canary
        shares = {found.plan.policy: found.share, found.plan.base: 1 - found.share}
        if (share := shares.get(policy.ref.name)) is None:
            lines.append(f"It has no part in the canary of {found.plan.policy} ({canary}).")
        else:
            role = "tried" if policy.ref.name == found.plan.policy else "the base"
            lines.append(
                f"It is {role} in a canary that is {found.status.value}: it decides {100 * share:g} % of the requests."
            )
    return lines


def parameters_in_words(policy: ServedPolicy) -> list[str]:
    """Return a sentence for each candidate that is asked with parameters of its own, or that refuses some."""
    lines = []
    for candidate, refused in zip(policy.rules.file.candidates, policy.rules.refused, strict=True):
        own = candidate.params.model_dump(mode="json")
        asked = [f"is asked with {shown(json.dumps(own), _MOST_SHOWN)}"] if own else []
        refuses = [f"refuses {', '.join(sorted(refused))}"] if refused else []
        if asked or refuses:
            lines.append(f"{candidate.name} {' and '.join(asked + refuses)}.")
    return lines
