"""What a certificate is bound to, and whether the policy at hand is still the one it was given for."""

from __future__ import annotations

import hashlib
import json
import logging
from datetime import UTC, datetime

from router.errors import ConfigError
from router.policies.policy_file import Certificate, CostRule
from router.policies.rules import Rules

log = logging.getLogger(__name__)

# Not that of cached input: it is for sessions, and a certificate is about prompts decided one by one.
_PRICES_THAT_DECIDE = {"input_usd_per_million_tokens", "output_usd_per_million_tokens"}


def digest_of(rules: Rules, *, with_prices: bool = False) -> str:
    """SHA-256 (hex) of everything in a policy that decides, so that an edit voids the certificate.

    Rule, tiers and what each may answer, safe default and the limit of abstention; regions where the policy requires
    one; prices and answer lengths where the rule weighs costs or, `with_prices`, where a target is about costs. Not
    names, provider settings or texts, nor what sessions hold: a certificate is about prompts decided one by one.
    """
    priced = with_prices or isinstance(rules.file.rule, CostRule)
    tiers = [
        (
            candidate.name_in_probe,
            sorted(candidate.capabilities),
            candidate.context_window_tokens,
            (prices.model_dump(include=_PRICES_THAT_DECIDE) if prices else None, candidate.expected_output_tokens)
            if priced
            else None,
        )
        for candidate, prices in zip(rules.file.candidates, rules.prices, strict=True)
    ]
    safe = rules.file.names.index(rules.file.safe_default)
    decides = [rules.file.rule.model_dump(mode="json"), tiers, safe, rules.file.failure_mode, rules.max_leverage]
    if rules.file.require_region is not None:
        decides.append([rules.file.require_region, [sorted(candidate.regions) for candidate in rules.file.candidates]])
    return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()


def is_about_cost(certificate: Certificate) -> bool:
    """Whether a target of it depends on prices."""
    return any(target.kind == "max_cost_usd_per_1k" for target in certificate.targets)


def is_expired(certificate: Certificate) -> bool:
    """Whether its time is over."""
    return certificate.expires <= datetime.now(UTC)


def say_certificate(certificate: Certificate | None) -> str:
    """One line for people."""
    if certificate is None:
        return "no certificate"
    targets = " and ".join(f"{target.kind} {target.limit:g}" for target in certificate.targets)
    until = f"{'EXPIRED on' if is_expired(certificate) else 'good until'} {certificate.expires.date()}"
    return (
        f"certified {targets} against {certificate.reference}, confidence {certificate.confidence:g}, on "
        f"{certificate.n_calibration:,} prompts, {until}"
    )


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
    if is_expired(certificate):
        log.warning(
            "%s: the certificate expired on %s; tune again on recent outcomes", where, certificate.expires.isoformat()
        )
