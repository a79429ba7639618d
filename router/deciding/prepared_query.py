"""Hold a query that was read and checked, and write its decision record once a candidate is chosen."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from router.deciding.encode_job import EncodedPrompt
from router.deciding.judgement_cache import CacheKey
from router.decision import RoutingDecision, ScoreUsed, Timings
from router.errors import JudgementError
from router.observing.cost_comparison import compare_costs
from router.observing.observer import DecidedEvent
from router.policies.choice import Choice
from router.policies.eligibility import Eligibility
from router.policies.loading import ServedPolicy
from router.policies.rules import Judgement
from router.times import new_id
from router.values import HeldCandidate, RouteQuery

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class PreparedQuery:
    """Holds a query that passed every check for which no encoder is needed.

    Attributes:
        query: the query, with the session id and the task that were found in it.
        policy: the policy that decides.
        eligibility: which candidates may answer, and the ask.
        caller: the opaque key of whoever calls.
        held: the candidate that answered the session last; None if there is none.
        started: the time of `time.perf_counter` at which the query came.
        is_judged: True if the probe is asked about the prompt.
        task_labels: the labels of the query's task, if the probe knows it; 0 if not.
        cache_key: the key of the judgement in the cache; None if it is not kept.
        cached: the judgement that the cache had; None if it had none.
        score: the caller's score that the policy judges by; None if it judges by a probe, or need not judge.
    """

    query: RouteQuery
    policy: ServedPolicy
    eligibility: Eligibility
    caller: str
    held: HeldCandidate | None
    started: float
    is_judged: bool
    task_labels: int
    cache_key: CacheKey | None
    cached: Judgement | None
    score: ScoreUsed | None = None

    @property
    def encoder_identity(self) -> str | None:
        """Return the identity of the encoder that must encode the prompt, or None if the prompt need not be encoded."""
        spec = self.policy.encoder_spec
        return spec.identity if spec is not None and self.is_judged and self.cached is None else None


def record_of(
    prepared: PreparedQuery, judgement: Judgement | None, choice: Choice, timings: Timings
) -> RoutingDecision:
    """Return the decision record of a query, of what the probe says of it, and of what the policy chooses."""
    policy, query, ask = prepared.policy, prepared.query, prepared.eligibility.ask
    return RoutingDecision(
        decision_id=new_id(),
        requested=query.overrides.pin or policy.ref.name,
        chosen=choice.chosen.name,
        chosen_model=choice.chosen.model,
        reason=choice.reason,
        difficulty=judgement.difficulty if judgement else None,
        candidates=choice.candidates,
        threshold=choice.threshold,
        gain=choice.gain,
        policy=policy.ref,
        probe=policy.probe_ref,
        abstained=choice.abstained,
        leverage=judgement.leverage if judgement else None,
        timings=timings,
        session_id=query.session_id,
        input_tokens_estimate=ask.input_tokens_estimate,
        language=ask.language,
        has_code=ask.has_code,
        needs=tuple(sorted(ask.needs)),
        task=query.task,
        task_known=prepared.task_labels > 0,
        task_labels=prepared.task_labels,
        would_choose=choice.would_choose.name if choice.would_choose else "",
        kinds=judgement.kinds if judgement else None,
        score=prepared.score,
        propensity=choice.propensity,
        escalated_from=query.escalated_from,
    )


def decided_event(
    prepared: PreparedQuery, decision: RoutingDecision, encoded: EncodedPrompt | Exception | None
) -> DecidedEvent:
    """Return what observers are told of a decision. `encoded` is as in `Router`."""
    ask, held = prepared.eligibility.ask, prepared.held
    features = encoded.features if isinstance(encoded, EncodedPrompt) else None
    return DecidedEvent(
        prepared.query,
        decision,
        prepared.caller,
        features=features,
        held=held,
        costs=compare_costs(prepared.eligibility, decision.candidates, decision.chosen, held),
        text=ask.text,
        in_tool_loop=ask.in_tool_loop,
        encoder="" if features is None else prepared.encoder_identity or "",
    )


def log_or_raise(policy: ServedPolicy, failure: Exception) -> None:
    """Log that a prompt could not be judged, and raise JudgementError if the policy does not go on without."""
    log.error("could not judge a prompt under policy %r: %s", policy.ref.name, type(failure).__name__, exc_info=failure)
    if policy.rules.file.failure_mode == "error":
        raise JudgementError(
            f"the prompt could not be judged, and policy {policy.ref.name!r} has failure_mode `error`; see the "
            f"service's log."
        ) from failure
