"""Define what choosing needs: a policy's file and prices (`Rules`), and what a probe says of a prompt (`Judgement`)."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from router.policies.credentials import host_of
from router.policies.policy_file import Candidate, GainRule, PolicyFile, Prices, RiskBoundRule, Rule
from router.values import Capability, NearKinds, Overrides, SpokenApi

#: What OpenAI and Azure serve for every model that they answer chats with. The old completions are for a few only.
_USUAL = frozenset({SpokenApi.RESPONSES, SpokenApi.EMBEDDINGS})

#: LiteLLM's prefix of models that are asked over the Responses API.
_RESPONSES_PREFIX = "openai/responses/"

_OPENAI_HOST, _OPENAI, _AZURE = ".api.openai.com", "openai", "azure"


@dataclass(frozen=True, slots=True)
class Judgement:
    """Holds what the probe says about one prompt.

    Attributes:
        raw: for each candidate in the policy's order the expected loss before calibration, unbounded.
        risk: for each candidate the calibrated probability of an unacceptable answer, 0 to 1.
        difficulty: the expected loss before calibration, averaged over all models of the probe.
        leverage: the distance of the prompt from what the probe was fitted on, 0 upwards.
        kinds: the known kinds that the prompt is nearest to; None if the probe knows none, and for judgements of whole
            files, which nobody asks for kinds.
    """

    raw: tuple[float, ...]
    risk: tuple[float, ...]
    difficulty: float
    leverage: float
    kinds: NearKinds | None = None


@dataclass(frozen=True, slots=True)
class Rules:
    """Holds a policy's file and what was looked up for it, such as prices, so that the policy can decide.

    Attributes:
        file: the policy file.
        prices: the prices of each candidate; None if they are unknown.
        max_leverage: a prompt of more leverage goes to the safe default; None never abstains.
        capabilities: the capabilities of each candidate as a set.
        spoken: the APIs of OpenAI, besides chat completions, that each candidate speaks itself.
    """

    file: PolicyFile
    prices: tuple[Prices | None, ...]
    max_leverage: float | None
    capabilities: tuple[frozenset[Capability], ...] = dataclasses.field(init=False)
    spoken: tuple[frozenset[SpokenApi], ...] = dataclasses.field(init=False)

    def __post_init__(self) -> None:
        sets = tuple(frozenset(candidate.capabilities) for candidate in self.file.candidates)
        object.__setattr__(self, "capabilities", sets)
        spoken = [[api for api in SpokenApi if speaks_api(candidate, api)] for candidate in self.file.candidates]
        object.__setattr__(self, "spoken", tuple(map(frozenset, spoken)))


def speaks_api(candidate: Candidate, api: SpokenApi) -> bool:
    """Return whether a candidate answers this API itself, so that its body can be handed on byte for byte.

    Its key `speaks` says so. Without it, OpenAI and Azure speak `responses` and `embeddings`, and a server of another
    `api_base` speaks neither, because many that are compatible with chat completions know nothing else.
    """
    provider = candidate.model.partition("/")[0]
    if candidate.speaks is not None:
        return api in candidate.speaks
    if provider == _OPENAI:
        base = candidate.api_base
        is_usual = base is None or f".{host_of(base)}".endswith(_OPENAI_HOST)
        is_usual = is_usual or (api is SpokenApi.RESPONSES and candidate.model.startswith(_RESPONSES_PREFIX))
    else:
        is_usual = provider == _AZURE
    return is_usual and api in _USUAL


def rule_in_force(file: PolicyFile, overrides: Overrides) -> Rule:
    """Return the rule that decides: the policy's own, or the gain rule that the caller's `min_gain` asks for."""
    if overrides.min_gain is None or len(file.candidates) == 1:
        return file.rule
    return GainRule(kind="gain", thresholds=(overrides.min_gain,) * (len(file.candidates) - 1))


def risk_bound(rules: Rules, overrides: Overrides) -> float | None:
    """Return the largest risk that is allowed, 0 to 1, or None if neither the request nor the policy bounds it."""
    if overrides.max_risk is not None:
        return overrides.max_risk
    rule = rule_in_force(rules.file, overrides)
    return rule.max_risk if isinstance(rule, RiskBoundRule) else None
