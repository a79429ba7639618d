"""Define what choosing needs: a policy's file and prices (`Rules`), and what a probe says of a prompt (`Judgement`)."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

from router.decision import NearKinds
from router.policies.candidates.candidate import Candidate, Prices
from router.policies.candidates.known_parameters import known_parameters, refused_by
from router.policies.credentials import CANNED_UPSTREAM, host_of
from router.policies.policy_file import GainRule, PolicyFile, RiskBoundRule, Rule
from router.values import ApiFormat, Capability, Overrides, SpokenApi

#: LiteLLM's prefixes of providers that speak OpenAI's chat API, and Anthropic's Messages API.
OPENAI_PREFIX, ANTHROPIC_PREFIX = "openai/", "anthropic/"

#: What OpenAI and Azure serve for every model that they answer chats with. The old completions are for a few only.
_USUAL = frozenset({SpokenApi.RESPONSES, SpokenApi.EMBEDDINGS})

#: LiteLLM's prefix of models that are asked over the Responses API.
_RESPONSES_PREFIX = "openai/responses/"

#: The providers, asked in a format of their own, that answer chats in OpenAI's format too, at this path of their URL.
SECOND_PATHS: Mapping[str, str] = {"gemini": "/openai", "ollama": "/v1", "ollama_chat": "/v1"}

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
        refused: the parameters that each candidate refuses, by their names in chat completions.
        names: the names of the candidates, cheapest tier first.
    """

    file: PolicyFile
    prices: tuple[Prices | None, ...]
    max_leverage: float | None
    capabilities: tuple[frozenset[Capability], ...] = dataclasses.field(init=False)
    spoken: tuple[frozenset[SpokenApi], ...] = dataclasses.field(init=False)
    refused: tuple[frozenset[str], ...] = dataclasses.field(init=False)
    names: tuple[str, ...] = dataclasses.field(init=False)

    def __post_init__(self) -> None:
        sets = tuple(frozenset(candidate.capabilities) for candidate in self.file.candidates)
        object.__setattr__(self, "capabilities", sets)
        spoken = [[api for api in SpokenApi if speaks_api(candidate, api)] for candidate in self.file.candidates]
        object.__setattr__(self, "spoken", tuple(map(frozenset, spoken)))
        object.__setattr__(self, "refused", tuple(map(refused_parameters, self.file.candidates)))
        object.__setattr__(self, "names", self.file.names)


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


def speaks_openai(candidate: Candidate) -> bool:
    """Return whether a candidate answers OpenAI's chat completions at a URL of its own, without LiteLLM.

    A few models that OpenAI serves by another API are not.
    """
    return candidate.model.startswith(OPENAI_PREFIX) and candidate.api_base is not None


def speaks_anthropic(candidate: Candidate) -> bool:
    """Return whether a candidate answers Anthropic's Messages API, at Anthropic or at a URL of its own."""
    return candidate.model.startswith(ANTHROPIC_PREFIX)


def refused_parameters(candidate: Candidate) -> frozenset[str]:
    """Return the parameters that a candidate refuses: those that its policy names, or else those that are known."""
    if candidate.unsupported is not None:
        return frozenset(candidate.unsupported)
    if candidate.api_base == CANNED_UPSTREAM:
        return frozenset()
    # Whoever sets a parameter of a candidate knows that it takes it, whatever the table says.
    own = candidate.params.named.keys()
    return refused_by(candidate.model, asked_directly=speaks_openai(candidate)) - own


def takes_unknown_parts(rules: Rules, index: int, api_format: ApiFormat) -> bool:
    """Return whether content parts of unknown types reach a candidate as they are, if they come in this API."""
    candidate = rules.file.candidates[index]
    if api_format is ApiFormat.ANTHROPIC_MESSAGES:
        return speaks_anthropic(candidate)
    if api_format is ApiFormat.OPENAI_RESPONSES:
        return SpokenApi.RESPONSES in rules.spoken[index]
    provider = candidate.model.partition("/")[0]
    return speaks_openai(candidate) or provider in SECOND_PATHS or provider in known_parameters().passes_parts


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
