"""The policy file as frozen pydantic models of its YAML. Unknown keys and values out of range are refused.

`router.policies.loading.load_policy` checks what needs more than the file: the probe, and LiteLLM's price table.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, ValidationError, field_validator, model_validator

from probes.bounded.files import shown
from router.errors import ConfigError
from router.policies.certificate_record import CertificateRecord
from router.policies.credentials import SECRET_KEYS, check_base, check_key_variable
from router.policies.file_model import Name, Probability, Region, StrictModel
from router.values import Capability
from router.yaml_file import read_yaml

#: Most tokens, seconds, failures in a row, USD per million tokens: far beyond sense, and well within a double.
_MOST_TOKENS, _MOST_SECONDS, _MOST_FAILURES, _MOST_USD, _MOST_QUALITY_PER_USD = 10**9, 10**8, 10**6, 1e9, 1e12

_MAX_SHOWN_FAULTS = 20


class Prices(StrictModel):
    """List prices in USD per million tokens; that of cached input is absent where there is none or it is not known."""

    input_usd_per_million_tokens: float = Field(ge=0, le=_MOST_USD)
    output_usd_per_million_tokens: float = Field(ge=0, le=_MOST_USD)
    cached_input_usd_per_million_tokens: Annotated[float, Field(ge=0, le=_MOST_USD)] | None = None

    def cost_usd(self, input_tokens: float, output_tokens: float, *, cached_input_tokens: float = 0) -> float:
        """Cost of one answer; so many of the input tokens come from the prompt cache, at its price if there is one."""
        per_million = (
            input_tokens * self.input_usd_per_million_tokens + output_tokens * self.output_usd_per_million_tokens
        )
        if cached_input_tokens and self.cached_input_usd_per_million_tokens is not None:
            saved = self.input_usd_per_million_tokens - self.cached_input_usd_per_million_tokens
            per_million -= cached_input_tokens * saved
        return per_million / 1e6


class Candidate(StrictModel):
    """One model that may answer.

    Attributes:
        name: its name in this policy.
        model: LiteLLM model string, such as `openai/gpt-4o` or `mistral/mixtral-8x7b-instruct`.
        probe_model: which of the probe's models it is; absent: the one named like the candidate.
        api_base: URL of the provider; absent: LiteLLM's default; `canned`: the built-in upstream with canned text.
        api_key_env: *name* of the environment variable that holds the key; absent: LiteLLM's usual one.
        prices: list prices, or `litellm` to take them from LiteLLM's bundled table; absent: unknown.
        context_window_tokens: requests estimated longer than this are not for it; absent: no bound.
        capabilities: what it can do; requests that need more are not for it.
        regions: where it may be said to answer, in tags of your own; requests that require another are not for it.
        expected_output_tokens: length of a usual answer, for expected costs.
        prompt_cache_s: how long its provider keeps a prompt cached after its last use, for sessions.
        timeout_s: longest wait for an answer, of a stream for its next piece; the caller's deadline may be shorter.
        first_token_timeout_s: longest wait for the first content of a stream.
        retries: how often a failure that may pass (429, 5xx, connection) is tried again before another is asked.
        break_after: failures in a row after which the candidate is left alone for a while.
        cooldown_s: how long; then one request tries whether it answers again. A refused key or unknown model rests as
            long at once, a provider's Retry-After goes before.
        max_answer_bytes: longest answer, and longest event of a stream, that is read; a stream may be 16 times as long.
    """

    name: Name
    model: str = Field(min_length=1)
    probe_model: str | None = None
    api_base: Annotated[str, AfterValidator(check_base)] | None = Field(default=None, repr=False)
    api_key_env: Annotated[str, AfterValidator(check_key_variable)] | None = Field(default=None, repr=False)
    prices: Prices | Literal["litellm"] | None = None
    context_window_tokens: int | None = Field(default=None, gt=0, le=_MOST_TOKENS)
    capabilities: tuple[Capability, ...] = (Capability.TEXT,)
    regions: tuple[Region, ...] = ()
    expected_output_tokens: int = Field(default=300, gt=0, le=_MOST_TOKENS)
    prompt_cache_s: float = Field(default=300.0, ge=0, le=_MOST_SECONDS)
    timeout_s: float = Field(default=120.0, gt=0, le=_MOST_SECONDS)
    first_token_timeout_s: float = Field(default=30.0, gt=0, le=_MOST_SECONDS)
    retries: int = Field(default=1, ge=0, le=5)
    break_after: int = Field(default=5, gt=0, le=_MOST_FAILURES)
    cooldown_s: float = Field(default=30.0, gt=0, le=_MOST_SECONDS)
    max_answer_bytes: int = Field(default=16 * 1024 * 1024, gt=0, le=2**30)

    @property
    def name_in_probe(self) -> str:
        """Which of the probe's models it is."""
        return self.probe_model or self.name


class GainRule(StrictModel):
    """Climb to a stronger tier where its expected gain is worth the price of the step.

    Candidates stand in the order of their tiers, cheapest first; `thresholds[i]` is the price, in quality from 0 to
    1, of the step from tier i to tier i + 1. The tier with the largest expected quality minus the prices up to it
    answers; with two tiers this is `gain > threshold`. Ties go to the cheaper tier.
    """

    kind: Literal["gain"]
    thresholds: tuple[Annotated[float, Field(ge=-1, le=1)], ...] = Field(min_length=1)


class RiskBoundRule(StrictModel):
    """The cheapest candidate whose calibrated risk is within the bound; if there is none, the least risky one."""

    kind: Literal["risk_bound"]
    max_risk: Probability


class CostRule(StrictModel):
    """The candidate with the largest expected quality minus `quality_per_usd` times its expected cost for this request.

    `quality_per_usd` is in quality (0 to 1) per USD: at 10, a cent more must buy 0.1 more expected quality. Zero looks
    at quality only; a negative number leans to dearer candidates. Ties go to the cheaper one. Every candidate needs
    prices.
    """

    kind: Literal["cost"]
    quality_per_usd: float = Field(ge=-_MOST_QUALITY_PER_USD, le=_MOST_QUALITY_PER_USD)


class FixedRule(StrictModel):
    """Always the same candidate."""

    kind: Literal["fixed"]
    candidate: Name


Rule = Annotated[GainRule | RiskBoundRule | CostRule | FixedRule, Field(discriminator="kind")]


class Profile(StrictModel):
    """Another rule on the same candidates, asked for as policy `NAME:PROFILE`."""

    rule: Rule
    certificate: CertificateRecord | None = None


class PolicyFile(StrictModel):
    """A policy as its author wrote it.

    Attributes:
        schema_: format of the file.
        name: what requests call it by.
        version: the author's own; what it contains is identified by its digest.
        description: one line for people.
        probe: folder of the probe, relative to the policy file, or `builtin:NAME`; absent only for the fixed rule.
        candidates: in the order of their tiers, cheapest first.
        rule: how the choice is made.
        safe_default: who answers where the router abstains or fails.
        failure_mode: what happens to a request that could not be judged.
        sessions: `hold` keeps a session's candidate inside tool loops, and where a weaker one would not be cheaper for
            its cold prompt cache; `ignore` decides every request by itself.
        require_region: only candidates with this among their `regions` may answer; absent: all may. A request may
            require one more, it cannot lift this one.
        abstain_above_leverage: prompts further than this from what the probe was fitted on go to the safe default;
            `probe` takes the limit stored with the probe, null never abstains.
        fallback: who answers where the chosen candidate does not: `up` asks eligible candidates at or above its floor
            (docs/decisions/0005-dispatch.md), `none` nobody.
        certificate: what was shown of the rule; absent for rules that nobody tuned.
        profiles: further rules by name; requests choose one with the policy name `NAME:PROFILE`.
    """

    schema_: Literal["elle.policy/1"] = Field(alias="schema")
    name: Name
    version: str = Field(default="1", min_length=1)
    description: str = ""
    probe: str | None = None
    candidates: tuple[Candidate, ...] = Field(min_length=1)
    rule: Rule
    safe_default: Name
    failure_mode: Literal["safe_default", "error"] = "safe_default"
    sessions: Literal["hold", "ignore"] = "hold"
    require_region: Region | None = None
    abstain_above_leverage: Annotated[float, Field(gt=0)] | Literal["probe"] | None = "probe"
    fallback: Literal["up", "none"] = "up"
    certificate: CertificateRecord | None = None
    profiles: dict[Name, Profile] = Field(default_factory=dict)

    @field_validator("version", mode="before")
    @classmethod
    def _version_is_text(cls, value: Any) -> Any:
        # `version: 3` in YAML is a number; what the author means is plain.
        return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value

    @model_validator(mode="after")
    def _parts_fit_together(self) -> Self:
        names = [candidate.name for candidate in self.candidates]
        if repeated := sorted(name for name, count in Counter(names).items() if count > 1):
            raise ValueError(f"candidate names must be distinct, {', '.join(repeated)} stands more than once")
        if self.safe_default not in names:
            raise ValueError(f"safe_default must be one of {', '.join(names)}, got {self.safe_default!r}")
        if self.require_region is not None and not any(self.require_region in c.regions for c in self.candidates):
            raise ValueError(
                f"require_region must be among the regions of a candidate, none has {self.require_region!r}"
            )
        self._check_rule(self.rule, "rule")
        for name, profile in self.profiles.items():
            self._check_rule(profile.rule, f"profiles.{name}.rule")
        return self

    def _check_rule(self, rule: Rule, where: str) -> None:
        names = self.names
        if isinstance(rule, GainRule) and len(rule.thresholds) != len(names) - 1:
            raise ValueError(
                f"{where}.thresholds must have one number per step between tiers, {len(names) - 1} for {len(names)} "
                f"candidates, got {len(rule.thresholds)}"
            )
        if isinstance(rule, FixedRule) and rule.candidate not in names:
            raise ValueError(f"{where}.candidate must be one of {', '.join(names)}, got {rule.candidate!r}")
        if isinstance(rule, CostRule) and (unpriced := [c.name for c in self.candidates if c.prices is None]):
            raise ValueError(f"{where} weighs costs, so every candidate needs prices; {', '.join(unpriced)} have none")
        if self.probe is None and not isinstance(rule, FixedRule):
            raise ValueError(f"probe must be set for the rule {rule.kind!r}; only the fixed rule needs none")

    def with_profile(self, name: str) -> PolicyFile:
        """The file as if that profile's rule and certificate were its own."""
        profile = self.profiles[name]
        return self.model_copy(update={"rule": profile.rule, "certificate": profile.certificate, "profiles": {}})

    def to_json(self) -> str:
        """Canonical JSON of the file, defaults filled in."""
        return json.dumps(self.model_dump(mode="json", by_alias=True), sort_keys=True, ensure_ascii=False)

    @property
    def digest(self) -> str:
        """SHA-256 of the canonical JSON."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the candidates, cheapest tier first."""
        return tuple(candidate.name for candidate in self.candidates)


def read_policy_file(path: Path) -> PolicyFile:
    """The policy in a YAML file.

    Raises ConfigError naming the file, each key at fault, and what it must be.
    """
    data = read_yaml(path, "policy file")
    if not isinstance(data, dict):
        raise ConfigError(f"policy file {path} must hold a mapping, got {type(data).__name__}.")
    try:
        return PolicyFile.model_validate(data)
    except ValidationError as error:
        raise ConfigError(f"policy file {path} is not valid:\n{_explain(error)}") from error


def _explain(error: ValidationError) -> str:
    lines = []
    problems = error.errors(include_url=False)
    for problem in problems[:_MAX_SHOWN_FAULTS]:
        # Tags of unions ("gain", "Prices") are no keys of the file.
        place = ".".join(shown(str(part)) for part in problem["loc"]) or "(whole file)"
        if problem["type"] == "extra_forbidden":
            lines.append(f"  {place}: unknown key; remove it or correct its spelling")
            continue
        given = problem.get("input") if problem["loc"][-1:] not in SECRET_KEYS else ...
        got = f", got {shown(repr(given))}" if isinstance(given, str | int | float | bool) or given is None else ""
        lines.append(f"  {place}: {shown(problem['msg'].removeprefix('Value error, '), 600)}{got}")
    if len(problems) > _MAX_SHOWN_FAULTS:
        lines.append(f"  and {len(problems) - _MAX_SHOWN_FAULTS:,} more")
    return "\n".join(lines)
