"""Take one request through all steps to a decision (`Router`). Every door of the service decides by this alone.

query -> ask -> eligible candidates -> features -> judgement -> choice -> decision record
"""

from __future__ import annotations

import contextlib
import copy
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Self

from probes.encoders.load import load_encoder
from probes.encoders.spec import Encoder
from probes.errors import ProbesError
from router.asking import ask as asking
from router.asking.caller_scores import scores_of
from router.asking.session_ids import session_id_of
from router.asking.task_keys import task_of, task_of_system_prompt
from router.deciding.caller_limits import check_budget, within_limits
from router.deciding.encode_job import EncodedPrompt
from router.deciding.encoder_set import EncoderSet
from router.deciding.fair_queue import who
from router.deciding.judgement_cache import CacheCounts, JudgementCache
from router.deciding.prepared_query import PreparedQuery, decided_event, log_or_raise, record_of
from router.deciding.session_memory import AnswerMemory
from router.deciding.settings import DEFAULT_SETTINGS, RouterSettings
from router.decision import RoutingDecision, Timings
from router.errors import RouterError, UnknownPolicyError
from router.exploring.explorer import Explorer, explored_choice
from router.feedback.escalation import FindAnswerer, above_answerer
from router.intake.bounds import Intake
from router.intake.loop_turns import TURNS
from router.observing.observer import NO_OBSERVERS, Observers, RefusedEvent
from router.policies.choice import choose, needs_no_scores
from router.policies.eligibility import check_eligibility
from router.policies.loading import DEFAULT_POLICY, ServedPolicy, load_policies
from router.policies.rules import Judgement
from router.quoting import MAX_QUOTED_CHARACTERS, did_you_mean, quoted
from router.values import RouteQuery


class Router:
    """Decides which candidate answers a request. It is thread-safe, and its policies never change.

    It remembers which candidate answered each session last. It also keeps recent judgements, which changes no decision.
    A service that gets other policies makes a successor (`with_policies`), which goes on with these memories.

    Args:
        policies: the policies, at least one; the first one is the default.
        encoders: the encoder for each encoder identity that a probe of the policies names.
        settings: the bounds of the router and the sizes of its memories.
        intake: the bounds that all doors share; None makes new ones.
        clock: returns the time in seconds by which sessions are remembered, and never goes backwards.
        observers: are told of every decision.

    Raises EncoderMismatchError if an encoder is not the one that a probe was fitted on.
    """

    def __init__(
        self,
        policies: Sequence[ServedPolicy],
        encoders: Mapping[str, Encoder],
        settings: RouterSettings = DEFAULT_SETTINGS,
        *,
        intake: Intake | None = None,
        clock: Callable[[], float] = time.monotonic,
        observers: Observers = NO_OBSERVERS,
    ) -> None:
        self._settings = settings
        self._encoders = EncoderSet({}, settings)
        self._take(policies, encoders)
        self._cache = JudgementCache(settings.cache_entries)
        #: Who answered which session and gave which response.
        self.memory = AnswerMemory(settings, clock)
        self._intake = Intake() if intake is None else intake
        self._observers = observers
        self.find_answerer: FindAnswerer | None = None
        self.explorer: Explorer | None = None

    @classmethod
    def from_files(cls, *paths: Path | str, encoder_dir: Path | None = None, **others: Any) -> Self:
        """Return a router for these policy files; without files, for the embedded default policy.

        encoder_dir: the folder of the encoder's files; None looks in the usual places. `others` are arguments of the
            class.

        Raises ConfigError for a policy or probe that cannot be used, and EncoderError if the encoder is not found.
        """
        policies = load_policies([Path(path) for path in paths] or [DEFAULT_POLICY])
        return cls.from_policies(policies, encoder_dir=encoder_dir, **others)

    @classmethod
    def from_policies(cls, policies: Sequence[ServedPolicy], *, encoder_dir: Path | None = None, **others: Any) -> Self:
        """Return a router for these policies. Arguments and errors are those of `from_files`."""
        return cls(policies, load_encoders(policies, encoder_dir), **others)

    def with_policies(self, policies: Sequence[ServedPolicy], encoder_dir: Path | None = None) -> Self:
        """Return a router that decides by other policies and goes on with the memories, bounds and observers of this.

        Both can decide at the same time. An encoder that both need is not loaded again, and keeps its threads. The
        threads of one that only this router needs end when nobody refers to this router any more. Whoever closes the
        successor closes what both share.

        Raises EncoderError if an encoder is not found, or is not the one that a probe was fitted on.
        """
        successor = copy.copy(self)
        successor._take(policies, load_encoders(policies, encoder_dir, self._encoders.encoders))
        return successor

    def _take(self, policies: Sequence[ServedPolicy], encoders: Mapping[str, Encoder]) -> None:
        for policy in policies:
            if policy.encoder_spec is not None:
                policy.check_encoder(encoders[policy.encoder_spec.identity])
        #: For each encoder identity that a probe names, the identity of the encoder that runs for it. The two differ if
        #: the encoders differ in rounding only.
        self.encoder_identities = {identity: encoder.spec.identity for identity, encoder in encoders.items()}
        self._default = policies[0].ref.name
        self._policies = {policy.ref.name: policy for policy in policies}
        self._encoders = EncoderSet(encoders, self._settings, self._encoders)

    @property
    def intake(self) -> Intake:
        """Return the bounds on incoming requests, which gRPC, HTTP and all other doors share."""
        return self._intake

    @property
    def max_prompt_bytes(self) -> int:
        """Return how many bytes of text a request may hold."""
        return self._settings.max_prompt_bytes

    @property
    def policies(self) -> Mapping[str, ServedPolicy]:
        """Return all policies by name, the default first."""
        return MappingProxyType(self._policies)

    def policy(self, name: str | None) -> ServedPolicy:
        """Return the policy of this name; for None or an empty name the default. Raise UnknownPolicyError."""
        try:
            return self._policies[name or self._default]
        except KeyError as error:
            raise UnknownPolicyError(_no_policy(name or "", self._policies), field="overrides.policy") from error

    def warm_up(self) -> None:
        """Run every encoder and probe once, so that the first request does not wait until they are set up."""
        for policy in self._policies.values():
            if policy.encoder_spec is not None:
                policy.judge(self._encoders.encoders[policy.encoder_spec.identity].encode("warm up"))

    def decide(self, query: RouteQuery, *, caller: str = "", observed: bool = True) -> RoutingDecision:
        """Decide a request in the calling thread, which also encodes the prompt.

        caller: the opaque key of whoever calls (`router.asking.session_ids.caller_of`). Sessions and cached judgements
            belong to one caller. If it is empty, no judgement is cached. observed: whether observers are told.

        Raises RouterError.
        """
        prepared = self._prepare(query, caller)
        encoded: EncodedPrompt | Exception | None = None
        if (encoder := prepared.encoder_identity) is not None:
            encoded = self._encoders.encode_here(encoder, prepared.eligibility.ask.text)
        return self._conclude(prepared, encoded, self._observers if observed else NO_OBSERVERS)

    async def adecide(
        self,
        query: RouteQuery,
        *,
        caller: str = "",
        connection: str = "",
        timeout_s: float | None = None,
        large: bool = False,
        in_batch: bool = False,
    ) -> RoutingDecision:
        """Decide a request from an event loop, while the threads of the encoder encode the prompt.

        Args:
            query: the request.
            caller: as in `decide`.
            connection: where the call comes from, as `router.deciding.fair_queue.who` takes it. Hosts, connections and
                callers take turns at the encoder.
            timeout_s: seconds from now within which the encoder must begin with the prompt; None waits for ever.
            large: True if the request came in more than `router.intake.bounds.SMALL_BYTES`. It is then read in the
                thread for large requests.
            in_batch: True for one of many requests, for which nothing else pauses.

        Raises RouterError; OverloadedError at once if the encoder's queue is full; DeadlineError after `timeout_s`.
        """
        deadline = None if timeout_s is None else time.perf_counter() + timeout_s
        with contextlib.nullcontext() if in_batch else TURNS.deciding:
            try:
                check_budget()
                if query.escalated_from:
                    file = self.policy(query.overrides.policy).rules.file
                    query = await above_answerer(query, file, caller, self.find_answerer)
                if large:
                    prepared = await self._intake.run_in_thread(self._prepare, query, caller)
                else:
                    prepared = self._prepare(query, caller)
                encoded: EncodedPrompt | Exception | None = None
                if (encoder := prepared.encoder_identity) is not None:
                    text, whose = prepared.eligibility.ask.text, who(connection, caller)
                    is_alone = not in_batch and TURNS.deciding.n_waiting == 1 and not self._intake.n_arriving
                    encoded = await self._encoders.encode(encoder, text, deadline, whose, is_alone=is_alone)
                return self._conclude(prepared, encoded, self._observers)
            except RouterError as error:
                policy = query.overrides.policy or ""
                self._observers.refused(RefusedEvent(policy if policy in self._policies else "", caller, error))
                raise

    @property
    def cache_counts(self) -> CacheCounts:
        """Return how often the cache of judgements had a prompt, and how often it had not."""
        return self._cache.counts

    @property
    def batch_slots(self) -> int:
        """Return how many prompts of all batches may be in work at a time: as many as keep every encoder busy."""
        return self._encoders.batch_slots

    @property
    def pending(self) -> int:
        """Return the number of prompts that wait for an encoder or are in work."""
        return self._encoders.pending

    def remember_answer(self, decision: RoutingDecision, candidate: str, *, caller: str = "") -> None:
        """Note which candidate answered, so that the session of the decision goes on with it.

        A door calls this if another candidate answered than was chosen. Without a session nothing is noted. `caller` is
        as in `decide`.
        """
        self.memory.note_answer(decision, candidate, caller)

    async def close(self) -> None:
        """Stop the threads of the encoders and the thread for large requests."""
        await self._encoders.close()
        self._intake.close()

    def _prepare(self, query: RouteQuery, caller: str) -> PreparedQuery:
        started = time.perf_counter()
        policy = self.policy(query.overrides.policy)
        task = task_of(query.task, {}, query.parameters)
        ask = asking.extract(query, max_bytes=self._settings.max_prompt_bytes, marks=policy.marks)
        session_id = session_id_of(query.session_id, {}, query.parameters)
        if not task and policy.rules.file.task == "system_prompt":
            task = task_of_system_prompt(query)
        task_labels = policy.task_labels(task)
        held = self.memory.holder(caller, session_id, policy)
        # A request costs no forward pass if it is refused here, or if the choice is certain without scores.
        kept_by = self.memory.keeper(query, caller, policy)
        eligibility = check_eligibility(policy.rules, ask, query.overrides, kept_by=kept_by)
        is_certain = needs_no_scores(eligibility, held)
        is_judged = bool(ask.text) and policy.probe is not None and not is_certain
        by_score = None if is_certain else policy.rules.file.score
        score = by_score.read(scores_of(query.scores, {}, query.parameters)) if by_score else None
        key = self._cache.key(policy, ask.text, caller, task if task_labels else "") if is_judged else None
        cached = self._cache.get(key) if key is not None else None
        if (session_id, task) != (query.session_id, query.task):
            query = replace(query, session_id=session_id, task=task)
        checked = query, policy, eligibility, caller, held, started
        return PreparedQuery(*checked, is_judged, task_labels, key, cached, score)

    def _conclude(
        self, prepared: PreparedQuery, encoded: EncodedPrompt | Exception | None, told: Observers
    ) -> RoutingDecision:
        """Return the decision record of a prepared query, of which `told` are told.

        encoded: the features of the prompt, or the encoder's error, or None if the prompt was not encoded.
        """
        encoded_at = time.perf_counter()
        judgement, failure = self._judge(prepared, encoded)
        judged_at = time.perf_counter()
        choice = choose(prepared.eligibility, judgement, judging_failed=failure is not None, held=prepared.held)
        choice = explored_choice(self.explorer, prepared.eligibility, prepared.held, choice)
        choice = within_limits(prepared.eligibility, choice)
        chosen_at = time.perf_counter()
        timings = Timings(
            queue_s=encoded.queue_s if isinstance(encoded, EncodedPrompt) else 0.0,
            encode_s=encoded.encode_s if isinstance(encoded, EncodedPrompt) else 0.0,
            probe_s=judged_at - encoded_at,
            policy_s=chosen_at - judged_at,
            total_s=chosen_at - prepared.started,
            cached=prepared.cached is not None,
        )
        decision = record_of(prepared, judgement, choice, timings)
        self.remember_answer(decision, decision.chosen, caller=prepared.caller)
        told.decided(decided_event(prepared, decision, encoded))
        return decision

    def _judge(
        self, prepared: PreparedQuery, encoded: EncodedPrompt | Exception | None
    ) -> tuple[Judgement | None, Exception | None]:
        """Return the judgement of the prompt, and the error if judging failed. Both are None if it was not judged.

        Raises JudgementError for a failure if the policy says so.
        """
        if prepared.score is not None:
            return prepared.policy.judge_score(prepared.score), None
        if encoded is None:
            return prepared.cached, None
        failure: Exception
        if isinstance(encoded, EncodedPrompt):
            try:
                judgement = prepared.policy.judge(encoded.features, prepared.query.task)
            except ProbesError as error:
                failure = error
            else:
                if prepared.cache_key is not None:
                    self._cache.put(prepared.cache_key, judgement)
                return judgement, None
        else:
            failure = encoded
        log_or_raise(prepared.policy, failure)
        return None, failure


def load_encoders(
    policies: Iterable[ServedPolicy], encoder_dir: Path | None, loaded: Mapping[str, Encoder] = MappingProxyType({})
) -> dict[str, Encoder]:
    """Return the encoder for each encoder identity that the policies' probes name. `loaded`: those that exist."""
    specs = {policy.encoder_spec.identity: policy.encoder_spec for policy in policies if policy.encoder_spec}
    return {identity: loaded.get(identity) or load_encoder(spec, encoder_dir) for identity, spec in specs.items()}


def _no_policy(name: str, known: Collection[str]) -> str:
    """Return the message for a name that no policy has, or no profile of a policy."""
    policy, _, profile = name.partition(":")
    if profile and policy in known:
        profiles = [other.partition(":")[2] for other in known if other.startswith(f"{policy}:")]
        return (
            f"policy {quoted(policy)} has no profile {quoted(profile)}; it has {', '.join(profiles) or 'none at all'}."
        )
    hint = did_you_mean(name, known) if len(name) <= MAX_QUOTED_CHARACTERS else ""
    return f"policy must be one of {', '.join(known)}, got {quoted(name)}.{hint}"
