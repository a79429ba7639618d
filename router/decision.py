"""Define the record of one decision: the chosen candidate, the reason, and the numbers it was made from."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Reason(enum.Enum):
    """The reasons for which a policy may choose a candidate.

    The values are the names on the wire without their prefix.
    """

    GAIN_BELOW_THRESHOLD = "GAIN_BELOW_THRESHOLD"
    GAIN_ABOVE_THRESHOLD = "GAIN_ABOVE_THRESHOLD"
    WITHIN_RISK_BOUND = "WITHIN_RISK_BOUND"
    NONE_WITHIN_RISK_BOUND = "NONE_WITHIN_RISK_BOUND"
    FIXED = "FIXED"
    PINNED = "PINNED"
    ONLY_ELIGIBLE = "ONLY_ELIGIBLE"
    ABSTAINED = "ABSTAINED"
    FAILED_OPEN = "FAILED_OPEN"
    SESSION_HELD = "SESSION_HELD"
    OVER_LIMIT = "OVER_LIMIT"
    EXPLORED = "EXPLORED"
    #: (client) A newer service sent a reason that this version does not know, or the service sent none.
    UNKNOWN = "UNKNOWN"


@dataclass(frozen=True, slots=True)
class CandidateRisk:
    """Describes one candidate in a decision: its risk, its cost, and whether it may answer.

    Attributes:
        candidate: the name of the candidate in the policy.
        model: the LiteLLM model string of the candidate.
        raw: expected loss before calibration, unbounded; None if the prompt was not judged.
        risk: calibrated probability, 0 to 1, that the candidate's answer is not acceptable; None if the prompt was not
            judged.
        expected_cost_usd: expected cost of one answer in USD; None if the candidate's price is not known.
        ineligible_because: every reason why the candidate may not answer, in words; empty if it may.
        dropped_parameters: the parameters of the request that the candidate is not sent, because it refuses them.
    """

    candidate: str
    model: str
    raw: float | None
    risk: float | None
    expected_cost_usd: float | None
    ineligible_because: tuple[str, ...] = ()
    dropped_parameters: tuple[str, ...] = ()

    @property
    def eligible(self) -> bool:
        """Return whether the candidate may answer this request."""
        return not self.ineligible_because


@dataclass(frozen=True, slots=True)
class ArtifactRef:
    """Identifies a policy or a probe by name, version and SHA-256. Two policies with the same digest decide alike."""

    name: str
    version: str
    digest: str


@dataclass(frozen=True, slots=True)
class Timings:
    """Holds how long each part of one decision took, in seconds. `total_s` includes the other times.

    `cached` is True if the prompt had been judged before under the same policy and for the same credential. It was then
    not encoded again.
    """

    queue_s: float = 0.0
    encode_s: float = 0.0
    probe_s: float = 0.0
    policy_s: float = 0.0
    total_s: float = 0.0
    cached: bool = False


@dataclass(frozen=True, slots=True)
class NearKind:
    """Names a known kind of request that a prompt is near to.

    Attributes:
        name: the kind in words, such as "short factual question"; at most 120 bytes.
        share: the share of this kind among all known kinds, 0 to 1: a posterior probability, if the prompt is of a
            known kind at all.
        assumed: True if the losses of this kind in the fit are assumptions and were not measured.
    """

    name: str
    share: float
    assumed: bool = False


@dataclass(frozen=True, slots=True)
class NearKinds:
    """Holds the known kinds that a prompt is nearest to, at most three, the nearest first.

    `known` is False if the prompt is far from all of them, and so of none of the known kinds.
    """

    nearest: tuple[NearKind, ...]
    known: bool


@dataclass(frozen=True, slots=True)
class ScoreUsed:
    """Records the caller's score that a policy read.

    Attributes:
        name: the name by which the policy asks for it.
        value: what the request said; None if it said nothing, or no finite number.
        fault: why it could not be used, such as `missing`; the router then abstained. Empty if it was used.
    """

    name: str
    value: float | None
    fault: str = ""


@dataclass(frozen=True, slots=True)
class RoutingDecision:
    """Records one decision: the chosen candidate, the reason, and the numbers that it was made from.

    Request, policy and probe determine every field except `decision_id` and `timings`.

    Attributes:
        decision_id: a different id for every decision.
        requested: the name of the policy, or of the candidate that the caller pinned.
        chosen: the name of the chosen candidate.
        chosen_model: the LiteLLM model string of the chosen candidate.
        reason: why the candidate was chosen.
        difficulty: expected loss before calibration, averaged over all models that the probe knows; None if the prompt
            was not judged.
        candidates: all candidates in the order of the policy.
        threshold: the number that the rule compared with: the risk bound, or the gain that the candidate had to exceed.
        gain: calibrated gain over the cheapest eligible candidate, -1 to 1. It is the gain of the chosen candidate, or
            of the best alternative if the cheapest one was chosen. None if the rule compared no gains.
        policy: the policy that decided.
        probe: the probe that judged; None if the policy has no probe.
        abstained: True if the router declined to judge, so that the safe default answers.
        leverage: how far the prompt lies from what the probe was fitted on, 0 upwards; None if it was not judged.
        timings: how long each part of the decision took.
        session_id: the session id that was given or found in the request; a digest if that id is longer than 256
            characters; empty for none.
        input_tokens_estimate: estimated input tokens of the whole request.
        language: ISO 639-1 code of the language of the newest human turn; `und` if it is unknown.
        has_code: True if the first or the newest human turn holds code.
        needs: capabilities besides text that a candidate needs to answer, sorted.
        task: the key of the task that was given, or that the system prompt stands for; empty for none.
        task_known: True if the probe has an offset for the task. If not, it judges as without a task.
        task_labels: the labels behind that offset, over all models; 0 if the task is not known.
        would_choose: the name of the candidate that would have been chosen, if the router abstained on a prompt that it
            judged, if a limit of the caller was reached, or if the policy explored; otherwise empty. `gain` and
            `threshold` are then those of that choice.
        kinds: the known kinds that the prompt is nearest to; None if it was not judged or the probe knows no kinds.
        score: the caller's score that the policy read; None if it reads none, or needed none for this request.
        propensity: the probability with which this candidate was chosen for this request: 1 unless the policy explores.
        escalated_from: the id of the decision whose answer was not good enough; empty for none.
    """

    decision_id: str
    requested: str
    chosen: str
    chosen_model: str
    reason: Reason
    difficulty: float | None
    candidates: tuple[CandidateRisk, ...]
    threshold: float | None
    gain: float | None
    policy: ArtifactRef
    probe: ArtifactRef | None
    abstained: bool
    leverage: float | None
    timings: Timings
    session_id: str
    input_tokens_estimate: int
    language: str = "und"
    has_code: bool = False
    needs: tuple[str, ...] = ()
    task: str = ""
    task_known: bool = False
    task_labels: int = 0
    would_choose: str = ""
    kinds: NearKinds | None = None
    score: ScoreUsed | None = None
    propensity: float = 1.0
    escalated_from: str = ""

    def expected_usd(self, candidate: str) -> float | None:
        """Return what an answer of this candidate is expected to cost in USD, or None if its price is not known."""
        for one in self.candidates:
            if one.candidate == candidate:
                return one.expected_cost_usd
        return None
