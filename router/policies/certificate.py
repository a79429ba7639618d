"""Check that a policy is still the one that its certificate was given for, and describe a certificate in words."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from probes.digests import json_digest
from router.errors import ConfigError
from router.policies.certificate_record import CertificateRecord, Covers
from router.policies.policy_file import CostRule, PolicyFile
from router.policies.rules import Rules

log = logging.getLogger(__name__)

# The FREE sets name the fields that may be edited without voiding a certificate. Every other field decides, also one
# that is added to the format later.

#: Names and texts are free. So are the probe and the certificates, which are checked by themselves; sessions, which
#: `covers` is about; fallback and exploring, which no certificate is about; and aliases, which say who decides and not
#: how.
FREE_IN_POLICY = frozenset(
    {"schema_", "name", "version", "description", "probe", "certificate", "profiles", "sessions", "fallback"}
    | {"aliases", "explore"}
)

#: Where and how patiently a candidate is reached is free. Its names are free too, because the digest holds the name of
#: its model in the probe in their place.
FREE_IN_CANDIDATE = frozenset(
    {"name", "model", "probe_model", "api_base", "api_key_env", "prompt_cache_s", "timeout_s", "first_token_timeout_s"}
    | {"retries", "break_after", "cooldown_s", "max_answer_bytes", "speaks"}
)

#: These fields decide only if the rule or a target weighs costs.
COSTS_OF_CANDIDATE = frozenset({"prices", "expected_output_tokens"})

#: This field decides only if the policy requires a region.
REGIONS_OF_CANDIDATE = frozenset({"regions"})

#: The price of cached input decides only about sessions, which no digest is about.
_FREE_IN_PRICES = frozenset({"cached_input_usd_per_million_tokens"})


def digest_of(rules: Rules, *, with_prices: bool = False) -> str:
    """Return the SHA-256 in hex of everything in a policy that decides, so that an edit voids the certificate.

    It covers all fields of the policy and of its candidates except the FREE ones. Regions are in it if the policy
    requires one. Prices and answer lengths are in it if the rule weighs costs, or if `with_prices` says that a target
    is about costs. Fields with their default value are not in it, so that a field that is added to the format later
    voids no certificate until somebody uses it.
    """
    priced = with_prices or isinstance(rules.file.rule, CostRule)
    decides = rules.file.model_dump(mode="json", exclude=set(FREE_IN_POLICY), exclude_defaults=True)
    # Three fields are replaced. Candidates are given by their index, because their names may be edited.
    decides["safe_default"] = rules.file.names.index(rules.file.safe_default)
    decides["abstain_above_leverage"] = rules.max_leverage
    decides["candidates"] = _candidates(rules, priced=priced)
    return json_digest(decides)


def _candidates(rules: Rules, *, priced: bool) -> list[dict[str, Any]]:
    free = FREE_IN_CANDIDATE | (REGIONS_OF_CANDIDATE if rules.file.require_region is None else frozenset())
    found = []
    for candidate, prices in zip(rules.file.candidates, rules.prices, strict=True):
        tier = candidate.model_dump(mode="json", exclude=set(free | COSTS_OF_CANDIDATE), exclude_defaults=True)
        # Lists are sorted, because they are sets: their order in the file means nothing.
        tier |= {name: sorted(value) for name, value in tier.items() if isinstance(value, list)}
        tier["model_of_probe"] = candidate.name_in_probe
        if priced:
            tier["prices"] = prices.model_dump(mode="json", exclude=set(_FREE_IN_PRICES)) if prices else None
            tier["expected_output_tokens"] = candidate.expected_output_tokens
        found.append(tier)
    return found


def sealed(certificate: CertificateRecord) -> CertificateRecord:
    """Return a copy of the certificate that holds a digest of its other fields.

    It is not a signature, but it reveals an edit.
    """
    return certificate.model_copy(update={"digest": _own_digest(certificate)})


def _own_digest(certificate: CertificateRecord) -> str:
    fields = certificate.model_dump(exclude={"digest"}, exclude_defaults=True)
    return json_digest({name: _plain(value) for name, value in fields.items()})


def _plain(value: Any) -> Any:
    # Some editors of YAML write a time in another time zone. It is the same time.
    return value.astimezone(UTC).isoformat() if isinstance(value, datetime) else value


def is_about_cost(certificate: CertificateRecord) -> bool:
    """Return whether a target of the certificate depends on prices."""
    return any(target.kind == "max_cost_usd_per_1k" for target in certificate.targets)


def is_expired(certificate: CertificateRecord) -> bool:
    """Return whether the certificate has expired."""
    return certificate.expires <= datetime.now(UTC)


def covers_of(file: PolicyFile) -> Covers:
    """Return which requests a certificate of this policy can cover: every request only if sessions are ignored."""
    return "every_request" if file.sessions == "ignore" else "requests_outside_sessions"


#: The words for each value of `CertificateRecord.covers`.
COVERAGE: Mapping[Covers, str] = {
    "every_request": "every request, each decided by itself",
    "requests_outside_sessions": "requests decided by themselves, not those where a session holds its model",
}


def say_certificate(certificate: CertificateRecord | None) -> str:
    """Return one line that tells people what a certificate promises."""
    if certificate is None:
        return "no certificate"
    targets = " and ".join(f"{target.kind} {target.limit:g}" for target in certificate.targets)
    until = f"{'EXPIRED on' if is_expired(certificate) else 'good until'} {certificate.expires.date()}"
    about = say_about(certificate.about, certificate.n_human)
    return (
        f"certified {targets} against {certificate.reference}, confidence {certificate.confidence:g}, on "
        f"{certificate.n_calibration:,} prompts, {until}; quality is {about}; {say_coverage(certificate)}"
    )


def say_about(about: str, n_human: int) -> str:
    """Return whose opinion the quality in a certificate is, in words for people.

    about: `people`, `scores`, or `judge NAME`. n_human: the number of prompts that people graded.
    """
    if about == "people":
        return f"what people say, who graded {n_human:,} of these prompts"
    if about == "scores":
        return "what the scores of the data say"
    return f"what the grader {about.removeprefix('judge ')!r} says, and not what people would say"


def say_coverage(certificate: CertificateRecord) -> str:
    """Return which requests a certificate covers and which not, in words for people."""
    parts = [f"covers {COVERAGE[certificate.covers]}", "not answers of another model while the chosen one is down"]
    if certificate.n_seen_left_out:
        parts.append(f"not requests like the {certificate.n_seen_left_out:,} left out because the fit saw their text")
    if certificate.n_incomplete:
        parts.append(f"not requests like the {certificate.n_incomplete:,} without a score of every model")
    if certificate.n_seen_kept:
        parts.append(
            f"if the {certificate.n_seen_kept:,} prompts whose text the fit saw are not the requests of the fit"
        )
    if certificate.attempts is None:
        parts.append("attempts not counted")
    elif certificate.attempts > 1:
        parts.append(f"attempt {certificate.attempts} with these data, and the confidence is that of a single attempt")
    return ", ".join(parts)


def check_certificate(rules: Rules, probe_identity: str | None, where: str) -> None:
    """Raise ConfigError if the policy has a certificate that was not given for this very rule and probe.

    An expired certificate is only logged. The policy decides as before, but nothing promises any more that traffic is
    like the calibration prompts.

    Args:
        rules: the policy.
        probe_identity: the identity of the policy's probe; None if it has none.
        where: the name of the policy file, for messages.
    """
    certificate = rules.file.certificate
    if certificate is None:
        return
    if fault := _fault_of_record(certificate, rules, probe_identity) or _fault_of_rule(certificate, rules):
        raise ConfigError(f"{where}: {fault}")
    if is_expired(certificate):
        log.warning(
            "%s: the certificate expired on %s; tune again on recent outcomes", where, certificate.expires.isoformat()
        )


def _fault_of_record(certificate: CertificateRecord, rules: Rules, probe_identity: str | None) -> str | None:
    """Return what is wrong with a certificate by itself, or None if nothing is wrong."""
    if certificate.probe != probe_identity:
        return (
            f"the certificate must be for the policy's probe or score, {probe_identity or 'none'}; it is for "
            f"{certificate.probe}. Run `elle tune` again, or remove the certificate."
        )
    if certificate.digest != _own_digest(certificate):
        return (
            "the certificate's own fields (targets, confidence, number of prompts, dates and the rest) must be as "
            "`elle tune` wrote them; one was edited since, or an earlier version wrote them. Restore the file, run "
            "`elle tune` again, or remove the certificate."
        )
    if certificate.reference not in rules.file.names:
        return f"certificate.reference must be one of {', '.join(rules.file.names)}, got {certificate.reference!r}."
    return None


def _fault_of_rule(certificate: CertificateRecord, rules: Rules) -> str | None:
    """Return in which way a policy differs from the one that its certificate was given for, or None if it does not."""
    about_cost = is_about_cost(certificate)
    if certificate.decides != digest_of(rules, with_prices=about_cost):
        return (
            "the certificate must be for the rule as it is; rule, candidates, safe default, abstention"
            f"{' or prices' if about_cost else ''} were changed since. Run `elle tune` again, or remove the "
            "certificate."
        )
    if certificate.covers == "every_request" and covers_of(rules.file) != "every_request":
        return (
            "the certificate covers every request, so the policy must say `sessions: ignore`; "
            f"`sessions: {rules.file.sessions}` lets a session keep its model if the certified rule would choose "
            "another. Restore it, run `elle tune --sessions hold`, or remove the certificate."
        )
    return None
