"""What a certificate is bound to, and whether the policy at hand is still the one it was given for."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from router.errors import ConfigError
from router.policies.certificate_record import CertificateRecord, Covers
from router.policies.policy_file import CostRule, PolicyFile
from router.policies.rules import Rules

log = logging.getLogger(__name__)

# What may be edited without voiding a certificate. Every other field decides, also one that is added later.

#: Names and texts; the probe and the certificates, which are checked by themselves; sessions, which `covers` is about;
#: who stands in for a candidate that is down, which no certificate is about.
FREE_IN_POLICY = frozenset(
    {"schema_", "name", "version", "description", "probe", "certificate", "profiles", "sessions", "fallback"}
)

#: Where a candidate is reached and how patiently. Which model of the probe it is does decide, in place of its names.
FREE_IN_CANDIDATE = frozenset(
    {"name", "model", "probe_model", "api_base", "api_key_env", "prompt_cache_s", "timeout_s", "first_token_timeout_s"}
    | {"retries", "break_after", "cooldown_s", "max_answer_bytes"}
)

#: These decide only where the rule or a target weighs costs.
COSTS_OF_CANDIDATE = frozenset({"prices", "expected_output_tokens"})

#: This decides only where the policy requires a region.
REGIONS_OF_CANDIDATE = frozenset({"regions"})

#: Of prices, that of cached input is for sessions only.
_FREE_IN_PRICES = frozenset({"cached_input_usd_per_million_tokens"})


def digest_of(rules: Rules, *, with_prices: bool = False) -> str:
    """SHA-256 (hex) of everything in a policy that decides, so that an edit voids the certificate.

    All fields of the policy and of its candidates but the FREE ones; regions where the policy requires one; prices and
    answer lengths where the rule weighs costs or, `with_prices`, where a target is about costs. Fields left at their
    default are not in it, so that a field added later voids nothing until it is used.
    """
    priced = with_prices or isinstance(rules.file.rule, CostRule)
    by_place = {"candidates", "safe_default", "abstain_above_leverage"}
    decides = rules.file.model_dump(mode="json", exclude=set(FREE_IN_POLICY | by_place), exclude_defaults=True)
    # By place: names may be edited.
    decides["safe_default"] = rules.file.names.index(rules.file.safe_default)
    decides["abstain_above_leverage"] = rules.max_leverage
    decides["candidates"] = _candidates(rules, priced=priced)
    return _sha256(decides)


def _candidates(rules: Rules, *, priced: bool) -> list[dict[str, Any]]:
    free = FREE_IN_CANDIDATE | (REGIONS_OF_CANDIDATE if rules.file.require_region is None else frozenset())
    found = []
    for candidate, prices in zip(rules.file.candidates, rules.prices, strict=True):
        tier = candidate.model_dump(mode="json", exclude=set(free | COSTS_OF_CANDIDATE), exclude_defaults=True)
        # Sets: their order in the file says nothing.
        tier |= {name: sorted(value) for name, value in tier.items() if isinstance(value, list)}
        tier["model_of_probe"] = candidate.name_in_probe
        if priced:
            tier["prices"] = prices.model_dump(mode="json", exclude=set(_FREE_IN_PRICES)) if prices else None
            tier["expected_output_tokens"] = candidate.expected_output_tokens
        found.append(tier)
    return found


def _sha256(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def sealed(certificate: CertificateRecord) -> CertificateRecord:
    """Return the certificate with the digest of all its other fields; no signature, but no edit goes unnoticed."""
    return certificate.model_copy(update={"digest": _own_digest(certificate)})


def _own_digest(certificate: CertificateRecord) -> str:
    fields = certificate.model_dump(exclude={"digest"}, exclude_defaults=True)
    return _sha256({name: _plain(value) for name, value in fields.items()})


def _plain(value: Any) -> Any:
    # A moment is the same in every time zone, and some editors of YAML change it.
    return value.astimezone(UTC).isoformat() if isinstance(value, datetime) else value


def is_about_cost(certificate: CertificateRecord) -> bool:
    """Whether a target of it depends on prices."""
    return any(target.kind == "max_cost_usd_per_1k" for target in certificate.targets)


def is_expired(certificate: CertificateRecord) -> bool:
    """Whether its time is over."""
    return certificate.expires <= datetime.now(UTC)


def covers_of(file: PolicyFile) -> Covers:
    """Return which requests a certificate of this policy can be about: all only where sessions hold nobody."""
    return "every_request" if file.sessions == "ignore" else "requests_outside_sessions"


#: The words for `Certificate.covers`.
COVERAGE: Mapping[Covers, str] = {
    "every_request": "every request, each decided by itself",
    "requests_outside_sessions": "requests decided by themselves, not those where a session holds its model",
}


def say_certificate(certificate: CertificateRecord | None) -> str:
    """One line for people."""
    if certificate is None:
        return "no certificate"
    targets = " and ".join(f"{target.kind} {target.limit:g}" for target in certificate.targets)
    until = f"{'EXPIRED on' if is_expired(certificate) else 'good until'} {certificate.expires.date()}"
    return (
        f"certified {targets} against {certificate.reference}, confidence {certificate.confidence:g}, on "
        f"{certificate.n_calibration:,} prompts, {until}; {say_coverage(certificate)}"
    )


def say_coverage(certificate: CertificateRecord) -> str:
    """Return what it is about and what not, in words for people."""
    parts = [f"covers {COVERAGE[certificate.covers]}", "not answers of a stand-in while the chosen model is down"]
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
        parts.append(f"attempt {certificate.attempts} on these data, the confidence is that of one")
    return ", ".join(parts)


def check_certificate(rules: Rules, probe_identity: str | None, where: str) -> None:
    """Raise ConfigError unless the policy's certificate, if it has one, was given for this very rule and probe.

    An expired certificate is logged: the policy decides as before, nothing promises any more that traffic is the same.
    """
    certificate = rules.file.certificate
    if certificate is None:
        return
    if certificate.probe != probe_identity:
        raise ConfigError(
            f"{where}: the certificate must be for the policy's probe, {probe_identity or 'none'}; it is for "
            f"{certificate.probe}. Run `elle tune` with this probe, or remove the certificate."
        )
    if certificate.digest != _own_digest(certificate):
        raise ConfigError(
            f"{where}: the certificate's own fields (targets, confidence, number of prompts, dates and the rest) must "
            "be as `elle tune` wrote them; one was edited since, or it is of an earlier version. Restore the file, run "
            "`elle tune` again, or remove the certificate."
        )
    if certificate.reference not in rules.file.names:
        raise ConfigError(
            f"{where}: certificate.reference must be one of {', '.join(rules.file.names)}, got "
            f"{certificate.reference!r}."
        )
    if certificate.decides != digest_of(rules, with_prices=is_about_cost(certificate)):
        raise ConfigError(
            f"{where}: the certificate must be for the rule as it stands; rule, candidates, safe default, abstention"
            f"{' or prices' if is_about_cost(certificate) else ''} were changed since. Run `elle tune` again, or "
            "remove the certificate."
        )
    if certificate.covers == "every_request" and covers_of(rules.file) != "every_request":
        raise ConfigError(
            f"{where}: the certificate covers every request, so the policy must say `sessions: ignore`; "
            f"`sessions: {rules.file.sessions}` lets a session keep its model where the certified rule would choose "
            "another. Restore it, run `elle tune --sessions hold`, or remove the certificate."
        )
    if is_expired(certificate):
        log.warning(
            "%s: the certificate expired on %s; tune again on recent outcomes", where, certificate.expires.isoformat()
        )
