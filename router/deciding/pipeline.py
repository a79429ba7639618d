"""`Router`: one request through the hops, in order. Every door of the service calls this and nothing else to decide.

query -> ask -> who may answer -> features -> judgement -> choice -> decision record
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Self

from probes.encoders.load import load_encoder
from probes.encoders.spec import Encoder
from probes.errors import ProbesError
from router.asking import ask as asking
from router.asking.ask import Ask
from router.asking.session_ids import session_id_of
from router.deciding.batch_pool import pool_for
from router.deciding.encode_pool import Encoded
from router.deciding.judgement_cache import CacheCounts, JudgementCache, Key
from router.deciding.sessions import Sessions
from router.errors import JudgementError, UnknownPolicyError
from router.intake.bounds import Intake
from router.policies.choice import decide, needs_no_scores
from router.policies.eligibility import Eligibility, check_eligibility
from router.policies.loading import DEFAULT_POLICY, ServedPolicy, load_policies
from router.policies.rules import Judgement
from router.quoting import quoted
from router.values import HeldCandidate, RouteQuery, RoutingDecision, Timings

log = logging.getLogger(__name__)

#: What an encoder raises when it fails on a prompt; torch raises RuntimeError.
_ENCODER_FAILURES = (ProbesError, RuntimeError, MemoryError)

#: Judgements kept for prompts that come again.
CACHE_ENTRIES = 10_000

#: Bytes of text above which a request is refused. About 128,000 tokens of English.
MAX_PROMPT_BYTES = 512 * 1024


@dataclass(frozen=True, slots=True)
class _Prepared:
    """A query that passed every check that needs no encoder."""

    query: RouteQuery
    policy: ServedPolicy
    ask: Ask
    caller: str
    held: HeldCandidate | None
    started: float
    is_judged: bool
    key: Key | None
    known: Judgement | None
    eligibility: Eligibility

    @property
    def encoder_identity(self) -> str | None:
        """The encoder to ask, or None where there is nothing to judge or it was judged before."""
        spec = self.policy.encoder_spec
        return spec.identity if spec is not None and self.is_judged and self.known is None else None


class Router:
    """Decides which candidate answers. Thread-safe.

    It remembers of a session who answered it last, and of a prompt how it was judged; the latter changes no decision.

    Args:
        policies: at least one; the first is the default.
        encoders: for every probe's encoder identity the encoder; cross-checked here.
        max_prompt_bytes: longer requests are refused.
        threads: encoder threads of the asynchronous path; None takes one per usable core. An encoder in batches has
            one.
        max_pending: prompts waiting for one encoder beyond which `adecide` raises OverloadedError; None takes
            `encode_pool.PENDING_PER_THREAD` for each thread, or what `BatchPool` takes.
        cache_entries: judgements kept for prompts that the same caller sends again; 0 keeps none.
        sessions: the memory of sessions; None takes one of the usual size.
        intake: the bounds that its doors share; None takes the usual ones.
    """

    def __init__(
        self,
        policies: Sequence[ServedPolicy],
        encoders: Mapping[str, Encoder],
        *,
        max_prompt_bytes: int = MAX_PROMPT_BYTES,
        threads: int | None = None,
        max_pending: int | None = None,
        cache_entries: int = CACHE_ENTRIES,
        sessions: Sessions | None = None,
        intake: Intake | None = None,
    ) -> None:
        for policy in policies:
            if policy.encoder_spec is not None:
                policy.check_encoder(encoders[policy.encoder_spec.identity])
        #: Which encoder runs for the probe of each encoder identity: another one where only the rounding differs.
        self.encoder_identities = {identity: encoder.spec.identity for identity, encoder in encoders.items()}
        self._default = policies[0].ref.name
        self._policies = {policy.ref.name: policy for policy in policies}
        self._encoders = dict(encoders)
        self._pools = {
            identity: pool_for(encoder, threads=threads, max_pending=max_pending)
            for identity, encoder in encoders.items()
        }
        self._max_prompt_bytes = max_prompt_bytes
        self._cache = JudgementCache(cache_entries)
        self._sessions = Sessions() if sessions is None else sessions
        self._intake = Intake() if intake is None else intake

    @classmethod
    def from_files(
        cls,
        *paths: Path | str,
        encoder_dir: Path | None = None,
        max_prompt_bytes: int = MAX_PROMPT_BYTES,
        threads: int | None = None,
        max_pending: int | None = None,
        cache_entries: int = CACHE_ENTRIES,
        sessions: Sessions | None = None,
        intake: Intake | None = None,
    ) -> Self:
        """A router for these policy files; none means the embedded default policy.

        Raises ConfigError for a policy or probe that cannot be used, EncoderError if the encoder is not to be had.
        """
        policies = load_policies([Path(path) for path in paths] or [DEFAULT_POLICY])
        specs = {p.encoder_spec.identity: p.encoder_spec for p in policies if p.encoder_spec is not None}
        encoders = {identity: load_encoder(spec, encoder_dir) for identity, spec in specs.items()}
        return cls(
            policies,
            encoders,
            max_prompt_bytes=max_prompt_bytes,
            threads=threads,
            max_pending=max_pending,
            cache_entries=cache_entries,
            sessions=sessions,
            intake=intake,
        )

    @property
    def intake(self) -> Intake:
        """The bounds of what comes in, of all doors together."""
        return self._intake

    @property
    def max_prompt_bytes(self) -> int:
        """Bytes of text that a request may hold."""
        return self._max_prompt_bytes

    @property
    def policies(self) -> Mapping[str, ServedPolicy]:
        """All policies by name, the default first."""
        return MappingProxyType(self._policies)

    def policy(self, name: str | None) -> ServedPolicy:
        """The policy of this name, or the default. Raises UnknownPolicyError."""
        try:
            return self._policies[name or self._default]
        except KeyError as error:
            raise UnknownPolicyError(
                f"policy must be one of {', '.join(self._policies)}, got {quoted(name)}.", field="overrides.policy"
            ) from error

    def warm_up(self) -> None:
        """Run every encoder and probe once, so that the first request does not pay for lazy set-up."""
        for policy in self._policies.values():
            if policy.encoder_spec is not None:
                policy.judge(self._encoders[policy.encoder_spec.identity].encode("warm up"))

    def decide(self, query: RouteQuery, *, caller: str = "") -> RoutingDecision:
        """Decide, encoding in the calling thread.

        caller: whoever asks, as an opaque key (`router.asking.session_ids.caller_of`); a session, and a judgement
            that is kept, is one of one caller. Empty for nobody in particular, for whom no judgement is kept.

        Raises RouterError.
        """
        prepared = self._prepare(query, caller)
        encoded: Encoded | Exception | None = None
        if (encoder := prepared.encoder_identity) is not None:
            started = time.perf_counter()
            try:
                features = self._encoders[encoder].encode(prepared.ask.text)
                encoded = Encoded(features, queue_s=0.0, encode_s=time.perf_counter() - started)
            except _ENCODER_FAILURES as error:
                encoded = error
        return self._conclude(prepared, encoded)

    async def adecide(
        self, query: RouteQuery, *, caller: str = "", timeout_s: float | None = None, large: bool = False
    ) -> RoutingDecision:
        """Decide, encoding in the worker threads. Arguments as `decide`.

        large: whether the request came in more than `router.intake.bounds.SMALL_BYTES`; it is then read in the thread
            for such.

        Raises RouterError; OverloadedError at once if the threads are behind; DeadlineError if the prompt's turn has
        not come `timeout_s` from now.
        """
        deadline = None if timeout_s is None else time.perf_counter() + timeout_s
        prepared = await self._intake.work(self._prepare, query, caller) if large else self._prepare(query, caller)
        encoded: Encoded | Exception | None = None
        if (encoder := prepared.encoder_identity) is not None:
            try:
                encoded = await self._pools[encoder].begin(prepared.ask.text, deadline=deadline)
            except _ENCODER_FAILURES as error:
                encoded = error
        return self._conclude(prepared, encoded)

    @property
    def cache_counts(self) -> CacheCounts:
        """How often a prompt was judged before."""
        return self._cache.counts

    @property
    def pending(self) -> int:
        """Prompts waiting for an encoder or in work."""
        return sum(pool.pending for pool in self._pools.values())

    def answered_by(self, decision: RoutingDecision, candidate: str, *, caller: str = "") -> None:
        """Note who answered where it was not the chosen candidate, so that the session of the decision goes on with it.

        For doors that fall back; `caller` as in `decide`. Without a session nothing is noted.
        """
        if decision.session_id:
            who = caller, decision.session_id, decision.policy.name
            self._sessions.remember(*who, candidate, decision.input_tokens_estimate)

    async def close(self) -> None:
        """Stop the worker threads."""
        for pool in self._pools.values():
            await pool.close()
        self._intake.close()

    def _prepare(self, query: RouteQuery, caller: str) -> _Prepared:
        started = time.perf_counter()
        policy = self.policy(query.overrides.policy)
        ask = asking.extract(query, max_bytes=self._max_prompt_bytes)
        session_id = session_id_of(query.session_id, {}, query.parameters)
        held = self._sessions.held(caller, session_id, policy.ref.name) if session_id else None
        # What is refused, or settled before any score, costs no forward pass.
        eligibility = check_eligibility(policy.rules, ask, query.overrides)
        settled = needs_no_scores(policy.rules, ask, query.overrides, held, eligibility=eligibility)
        is_judged = bool(ask.text) and policy.probe is not None and not settled
        key = self._cache.key(policy, ask.text, caller) if is_judged else None
        known = self._cache.get(key) if key is not None else None
        if session_id != query.session_id:
            query = replace(query, session_id=session_id)
        return _Prepared(query, policy, ask, caller, held, started, is_judged, key, known, eligibility)

    def _conclude(self, prepared: _Prepared, encoded: Encoded | Exception | None) -> RoutingDecision:
        policy, query = prepared.policy, prepared.query
        begun = time.perf_counter()
        judgement = prepared.known
        failure = encoded if isinstance(encoded, Exception) else None
        if isinstance(encoded, Encoded):
            try:
                judgement = policy.judge(encoded.features)
            except ProbesError as error:
                failure = error
            else:
                if prepared.key is not None:
                    self._cache.put(prepared.key, judgement)
        if failure is not None:
            self._report(policy, failure)
        judged = time.perf_counter()
        ask = prepared.ask
        choice = decide(
            policy.rules,
            ask,
            query.overrides,
            judgement,
            failed=failure is not None,
            held=prepared.held,
            eligibility=prepared.eligibility,
        )
        ended = time.perf_counter()
        decision = RoutingDecision(
            decision_id=os.urandom(16).hex(),
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
            timings=Timings(
                queue_s=encoded.queue_s if isinstance(encoded, Encoded) else 0.0,
                encode_s=encoded.encode_s if isinstance(encoded, Encoded) else 0.0,
                probe_s=judged - begun,
                policy_s=ended - judged,
                total_s=ended - prepared.started,
                cached=prepared.known is not None,
            ),
            session_id=query.session_id,
            input_tokens_estimate=ask.input_tokens_estimate,
            language=ask.language,
            has_code=ask.has_code,
            needs=tuple(sorted(ask.needs)),
        )
        self.answered_by(decision, decision.chosen, caller=prepared.caller)
        return decision

    @staticmethod
    def _report(policy: ServedPolicy, failure: Exception) -> None:
        log.error(
            "could not judge a prompt under policy %r: %s", policy.ref.name, type(failure).__name__, exc_info=failure
        )
        if policy.rules.file.failure_mode == "error":
            raise JudgementError(
                f"the prompt could not be judged ({type(failure).__name__}), and policy {policy.ref.name!r} has "
                f"failure_mode `error`; see the service's log."
            ) from failure
