"""Define the policy file as frozen pydantic models of its YAML. Unknown keys and values out of range are refused.

`router.policies.loading.load_policy` checks what needs more than the file: the probe, and LiteLLM's price table.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationError, field_validator, model_validator

from probes.bounded.text import kind_of
from router.asking.harness_marks import HarnessMarks
from router.errors import ConfigError
from router.policies.caller_score import CallerScore
from router.policies.candidates.candidate import Candidate
from router.policies.certificate_record import CertificateRecord
from router.policies.credentials import SECRET_KEYS, check_holds_no_secret
from router.policies.file_model import Alias, Name, Probability, Region, StrictModel, faults_text
from router.yaml_file import read_yaml

#: The largest quality per USD. It is far beyond sense, and far within the range of a double.
_MOST_QUALITY_PER_USD = 1e12

#: The largest numbers of aliases and of harnesses of a policy.
_MOST_ALIASES, _MOST_HARNESSES = 1000, 20

#: The path of a probe. No system allows a longer path, or one that holds NUL.
ProbePath = Annotated[str, Field(max_length=4096, pattern=r"^[^\x00]*$")]


class GainRule(StrictModel):
    """Choose a stronger tier if its expected gain in quality is worth the price of the steps up to it.

    The candidates are in the order of their tiers, cheapest first. `thresholds[i]` is the price of the step from tier i
    to tier i + 1, in quality from -1 to 1. The tier with the largest expected quality minus the prices of the steps up
    to it answers. For example: with two tiers the strong one answers if `gain > threshold`. Of equal tiers the cheaper
    one answers.
    """

    kind: Literal["gain"]
    thresholds: tuple[Annotated[float, Field(ge=-1, le=1)], ...] = Field(min_length=1)


class RiskBoundRule(StrictModel):
    """Choose the cheapest candidate with a calibrated risk within the bound; without one, the least risky candidate."""

    kind: Literal["risk_bound"]
    max_risk: Probability


class CostRule(StrictModel):
    """Choose the candidate with the largest expected quality minus `quality_per_usd` times its expected cost.

    `quality_per_usd` is in quality (0 to 1) per USD. For example: at 10, a cent more must buy 0.1 more expected
    quality. Zero looks at quality only, and a negative number prefers expensive candidates. Of equal candidates the
    cheaper one answers. Every candidate needs prices.
    """

    kind: Literal["cost"]
    quality_per_usd: float = Field(ge=-_MOST_QUALITY_PER_USD, le=_MOST_QUALITY_PER_USD)


class FixedRule(StrictModel):
    """Always choose the same candidate."""

    kind: Literal["fixed"]
    candidate: Name


Rule = Annotated[GainRule | RiskBoundRule | CostRule | FixedRule, Field(discriminator="kind")]


class Profile(StrictModel):
    """Another rule on the same candidates, which a request selects as `POLICY:PROFILE`.

    Requests ask for it as policy `NAME:PROFILE`.
    """

    rule: Rule
    certificate: CertificateRecord | None = None


class Exploring(StrictModel):
    """Says how much of the traffic is sent to another candidate than the rule chooses (docs/compare.md).

    Attributes:
        share: the share of decisions, above 0 to 0.5, for which another eligible candidate is drawn.
        usd_per_day: the most USD that the answers of drawn candidates may cost a day (UTC).
    """

    share: Annotated[float, Field(gt=0, le=0.5)]
    usd_per_day: Annotated[float, Field(gt=0, le=1e9)]


class PolicyFile(StrictModel):
    """A policy as its author wrote it in a YAML file.

    Attributes:
        schema_: the format of the file.
        name: the name that requests ask for.
        version: a version of the author's own; the digest says exactly what the file contains.
        description: one line for people.
        probe: the folder of the probe, relative to the policy file, or `builtin:NAME`; absent only for the fixed rule.
        score: a score that callers send with each request, by which the policy judges instead of a probe; absent: it
            has a probe, or a fixed rule (docs/scores.md).
        candidates: the models that may answer, in the order of their tiers, cheapest first.
        rule: how the candidate that answers is chosen.
        safe_default: the candidate that answers if the router abstains or fails.
        failure_mode: what happens to a request that could not be judged: the safe default answers it, or it is an
            error.
        sessions: `hold` keeps a session's candidate inside tool loops, and while a weaker one with a cold prompt cache
            would not be cheaper; `ignore` decides every request by itself.
        task: `system_prompt` takes the digest of the system prompt as the key of a request's task if the request names
            none (docs/tasks.md); absent: such a request has no task.
        on_unsupported: what happens if a request holds a parameter that a candidate refuses (docs/candidates.md).
            `drop` leaves it out for that candidate if its value is neutral, such as a temperature of 1, and the
            candidate does not answer if it is not; `drop_any` leaves out any value; `ineligible` leaves out nothing,
            and the candidate does not answer; `refuse` leaves out neutral values, and any other one is an error. A
            pinned candidate gets what is not left out.
        pass_unknown_parts: content parts of types that nobody here knows go to candidates whose provider speaks the API
            of the request, and to a pinned one; false: no candidate answers them.
        require_region: only candidates that list this region among their `regions` may answer; absent: all may. A
            request may require another region besides, but it cannot lift this one.
        abstain_above_leverage: a prompt of more leverage, which lies further from what the probe was fitted on, goes to
            the safe default; `probe` takes the limit stored with the probe, null never abstains.
        abstain_within: such a prompt goes to the safe default only if the candidate that the rule chooses is better by
            at most this, in quality from 0 to 1 with prices counted; absent: however much better it is. For example:
            at 0.05 an unfamiliar prompt is still answered cheaply if that is clearly worth it.
        aliases: further names that a request may give as its `model`, each with the candidate or profile of this policy
            that it stands for, or the policy's own name. A `*` in a name stands for any characters; a name without one
            counts first, and then the longest that matches. For example: `claude-haiku-*: economy` gives a coding
            agent's background requests to the profile `economy`.
        harness_marks: marks of your own agents by a name of yours, besides those that are shipped, by which the service
            tells what a harness added to a user turn; only the human's words are judged (docs/harnesses.md).
        fallback: which candidates are asked if the chosen one does not answer: `up` asks eligible candidates that are
            at least as strong as the floor of the request (docs/decisions/0005-dispatch.md), `none` asks no other.
        explore: send a share of the traffic to another eligible candidate, so that `elle compare` can compare policies;
            absent: none is. It needs `elle serve --ledger`. No certificate covers these requests.
        certificate: what was shown of the rule; absent for a rule that was not tuned.
        profiles: further rules by name; requests choose one with the policy name `NAME:PROFILE`.
    """

    schema_: Literal["elle.policy/1"] = Field(alias="schema")
    name: Name
    version: str = Field(default="1", min_length=1)
    description: str = ""
    probe: ProbePath | None = None
    score: CallerScore | None = None
    candidates: tuple[Candidate, ...] = Field(min_length=1)
    rule: Rule
    safe_default: Name
    failure_mode: Literal["safe_default", "error"] = "safe_default"
    sessions: Literal["hold", "ignore"] = "hold"
    task: Literal["system_prompt"] | None = None
    on_unsupported: Literal["drop", "drop_any", "ineligible", "refuse"] = "drop"
    pass_unknown_parts: bool = True
    require_region: Region | None = None
    abstain_above_leverage: Annotated[float, Field(gt=0)] | Literal["probe"] | None = "probe"
    abstain_within: Probability | None = None
    aliases: Annotated[dict[Alias, Name], Field(max_length=_MOST_ALIASES)] = Field(default_factory=dict)
    harness_marks: Annotated[dict[Name, HarnessMarks], Field(max_length=_MOST_HARNESSES)] = Field(default_factory=dict)
    fallback: Literal["up", "none"] = "up"
    explore: Exploring | None = None
    certificate: CertificateRecord | None = None
    profiles: dict[Name, Profile] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _holds_no_secret(cls, data: Any) -> Any:
        check_holds_no_secret(data)
        return data

    @field_validator("version", mode="before")
    @classmethod
    def _version_is_text(cls, value: Any) -> Any:
        # In YAML `version: 3` is a number. The author means the text.
        return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value

    @model_validator(mode="after")
    def _parts_fit_together(self) -> Self:
        names = [candidate.name for candidate in self.candidates]
        if repeated := sorted(name for name, count in Counter(names).items() if count > 1):
            raise ValueError(f"candidate names must be distinct, {', '.join(repeated)} occurs more than once")
        if self.safe_default not in names:
            raise ValueError(f"safe_default must be one of {', '.join(names)}, got {self.safe_default!r}")
        if self.require_region is not None and not any(self.require_region in c.regions for c in self.candidates):
            raise ValueError(
                f"require_region must be among the regions of a candidate, none has {self.require_region!r}"
            )
        self._check_aliases(names)
        if self.score is not None and self.probe is not None:
            raise ValueError("score must be absent if there is a probe: a policy judges by one of them")
        if self.score is not None and len(self.score.risks) != len(names):
            raise ValueError(f"score.risks must have a map per candidate, {len(names)}, got {len(self.score.risks)}")
        self._check_rule(self.rule, "rule")
        for name, profile in self.profiles.items():
            self._check_rule(profile.rule, f"profiles.{name}.rule")
        return self

    def _check_aliases(self, names: list[str]) -> None:
        known = [self.name, *self.profiles, *names]
        for alias, target in self.aliases.items():
            if alias in names:
                raise ValueError(f"aliases must not hold {alias!r}, because a candidate has that name")
            if target not in known:
                raise ValueError(f"aliases.{alias} must be one of {', '.join(known)}, got {target!r}")
            if target in names and target in (self.name, *self.profiles):
                raise ValueError(f"aliases.{alias} could mean the candidate or the profile {target!r}; rename one")

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
        if self.probe is None and self.score is None and not isinstance(rule, FixedRule):
            raise ValueError(f"probe or score must be set for the rule {rule.kind!r}; only the fixed rule needs none")

    def with_profile(self, name: str) -> PolicyFile:
        """Return the file with the rule and certificate of one profile in place of its own."""
        profile = self.profiles[name]
        return self.model_copy(update={"rule": profile.rule, "certificate": profile.certificate, "profiles": {}})

    def to_json(self) -> str:
        """Return the canonical JSON of the file, with defaults filled in."""
        return json.dumps(self.model_dump(mode="json", by_alias=True), sort_keys=True, ensure_ascii=False)

    @property
    def digest(self) -> str:
        """Return the SHA-256 of the canonical JSON in hex."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()

    def candidate(self, name: str) -> Candidate:
        """Return the candidate of this name, which the policy must have."""
        return self.candidates[self.names.index(name)]

    @property
    def names(self) -> tuple[str, ...]:
        """Return the names of the candidates, cheapest tier first."""
        return tuple(candidate.name for candidate in self.candidates)


def read_policy_file(path: Path) -> PolicyFile:
    """Return the policy that a YAML file holds.

    Raises ConfigError, which names the file, each key at fault, and what it must be.
    """
    data = read_yaml(path, "policy file")
    if not isinstance(data, dict):
        found = "but it is empty" if data is None else f"got {kind_of(data)}"
        raise ConfigError(
            f"policy file {path} must hold a mapping, {found}; `elle policy new` prints one to start from."
        )
    try:
        return PolicyFile.model_validate(data)
    except ValidationError as error:
        # The error is not chained, because its text may quote a secret.
        raise ConfigError(f"policy file {path} is not valid:\n{faults_text(error, PolicyFile, SECRET_KEYS)}") from None
