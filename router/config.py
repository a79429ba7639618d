"""The policy file: frozen pydantic models of its YAML. Unknown keys are refused, everything checkable is checked here.

What needs more than the file (the probe, LiteLLM's price table) is checked in `router.policy.load_policy`.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from router.errors import ConfigError

#: `api_base` of a candidate that is answered by the built-in loopback upstream with canned text.
CANNED_UPSTREAM = "canned"

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")]
Probability = Annotated[float, Field(ge=0, le=1)]


class Capability(StrEnum):
    """What a request may need of a candidate."""

    TEXT = "text"
    IMAGE = "image"
    AUDIO = "audio"
    FILE = "file"
    VIDEO = "video"
    TOOLS = "tools"
    JSON_SCHEMA = "json_schema"


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Prices(_Strict):
    """List prices in USD per million tokens."""

    input_usd_per_million_tokens: float = Field(ge=0)
    output_usd_per_million_tokens: float = Field(ge=0)

    def cost_usd(self, input_tokens: float, output_tokens: float) -> float:
        """Cost of one answer."""
        per_million = (
            input_tokens * self.input_usd_per_million_tokens + output_tokens * self.output_usd_per_million_tokens
        )
        return per_million / 1e6


class Candidate(_Strict):
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
        expected_output_tokens: length of a usual answer, for expected costs.
        timeout_s: longest wait for an answer; the caller's deadline may be shorter.
    """

    name: Name
    model: str = Field(min_length=1)
    probe_model: str | None = None
    api_base: str | None = None
    api_key_env: Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")] | None = None
    prices: Prices | Literal["litellm"] | None = None
    context_window_tokens: int | None = Field(default=None, gt=0)
    capabilities: tuple[Capability, ...] = (Capability.TEXT,)
    expected_output_tokens: int = Field(default=300, gt=0)
    timeout_s: float = Field(default=120.0, gt=0)

    @property
    def name_in_probe(self) -> str:
        """Which of the probe's models it is."""
        return self.probe_model or self.name


class GainRule(_Strict):
    """Climb to a stronger tier where its expected gain is worth the price of the step.

    Candidates stand in the order of their tiers, cheapest first; `thresholds[i]` is the price, in quality from 0 to
    1, of the step from tier i to tier i + 1. The tier with the largest expected quality minus the prices up to it
    answers; with two tiers this is `gain > threshold`. Ties go to the cheaper tier.
    """

    kind: Literal["gain"]
    thresholds: tuple[Annotated[float, Field(ge=-1, le=1)], ...] = Field(min_length=1)


class RiskBoundRule(_Strict):
    """The cheapest candidate whose calibrated risk is within the bound; if there is none, the least risky one."""

    kind: Literal["risk_bound"]
    max_risk: Probability


class FixedRule(_Strict):
    """Always the same candidate."""

    kind: Literal["fixed"]
    candidate: Name


Rule = Annotated[GainRule | RiskBoundRule | FixedRule, Field(discriminator="kind")]


class PolicyFile(_Strict):
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
        abstain_above_leverage: prompts further than this from what the probe was fitted on go to the safe default;
            `probe` takes the limit stored with the probe, null never abstains.
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
    abstain_above_leverage: Annotated[float, Field(gt=0)] | Literal["probe"] | None = "probe"

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
        if isinstance(self.rule, GainRule) and len(self.rule.thresholds) != len(names) - 1:
            raise ValueError(
                f"rule.thresholds must have one number per step between tiers, {len(names) - 1} for {len(names)} "
                f"candidates, got {len(self.rule.thresholds)}"
            )
        if isinstance(self.rule, FixedRule) and self.rule.candidate not in names:
            raise ValueError(f"rule.candidate must be one of {', '.join(names)}, got {self.rule.candidate!r}")
        if self.probe is None and not isinstance(self.rule, FixedRule):
            raise ValueError(f"probe must be set for the rule {self.rule.kind!r}; only the fixed rule needs none")
        return self

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
    try:
        text = path.read_text("utf-8")
    except FileNotFoundError as error:
        raise ConfigError(f"policy file {path} does not exist.") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"policy file {path} cannot be read: {error}.") from error
    try:
        data = yaml.load(text, Loader=_NoDuplicates)  # noqa: S506  (a SafeLoader)
    except yaml.YAMLError as error:
        raise ConfigError(f"policy file {path} must be YAML: {error}") from error
    if not isinstance(data, dict):
        raise ConfigError(f"policy file {path} must hold a mapping, got {type(data).__name__}.")
    try:
        return PolicyFile.model_validate(data)
    except ValidationError as error:
        raise ConfigError(f"policy file {path} is not valid:\n{_explain(error)}") from error


def _explain(error: ValidationError) -> str:
    lines = []
    for problem in error.errors(include_url=False):
        # Tags of unions ("gain", "Prices") are no keys of the file.
        place = ".".join(str(part) for part in problem["loc"]) or "(whole file)"
        if problem["type"] == "extra_forbidden":
            lines.append(f"  {place}: unknown key; remove it or correct its spelling")
            continue
        given = problem.get("input")
        shown = f", got {given!r}" if isinstance(given, str | int | float | bool) or given is None else ""
        lines.append(f"  {place}: {problem['msg'].removeprefix('Value error, ')}{shown}")
    return "\n".join(lines)


class _NoDuplicates(yaml.SafeLoader):
    """YAML keeps the last of two equal keys without a word; a policy must not."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for key, count in Counter(map(str, keys)).items():
            if count > 1:
                raise yaml.MarkedYAMLError(problem=f"key {key!r} stands twice", problem_mark=node.start_mark)
        return super().construct_mapping(node, deep=deep)
