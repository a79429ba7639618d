"""Ask and grade many prompts at once, in their order, until all are done or something stops it (`Jobs`)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from router.collecting.calls.asking import AskedCall, Asker, CallFailedError
from router.collecting.calls.budget import Budget, Cost, Reservation, StopCollectingError
from router.collecting.calls.store import CallStore
from router.collecting.graders.base import Grader
from router.collecting.records import CollectedPrompt
from router.collecting.sampling import ChosenPrompt
from router.collecting.values import ModelAnswer, Verdict
from router.collecting.work import MissingCalls, Work, stored_verdict
from router.values import Message

#: Prompts that are in hand at once. It bounds memory; how many calls are in flight is a limit of each model.
MOST_IN_HAND = 64

#: The collection stops if a judge gives no usable verdict on this many answers in a row.
MOST_NONSENSE_IN_A_ROW = 10

#: The longest answer of a judge, if its grader does not say.
_JUDGE_TOKENS = 1024

OnDone = Callable[[int, Cost], None]


@dataclass(frozen=True, slots=True)
class CollectProgress:
    """How far a collection is: prompts done and in total, USD spent, and USD expected in total (None if unknown)."""

    n_done: int
    n_prompts: int
    spent_usd: float
    expected_usd: float | None


class Jobs:
    """Asks and grades prompts within a budget, and keeps what is known of each."""

    def __init__(self, work: Work, asker: Asker, store: CallStore, budget: Budget) -> None:
        self._work, self._asker, self._store, self._budget = work, asker, store, budget
        self._found: dict[int, CollectedPrompt] = {}
        self._stopped: str | None = None
        self._nonsense: dict[str, int] = {}

    def in_order(self) -> list[CollectedPrompt]:
        """Return what is known of the prompts that were begun, in the order of the draw."""
        return [self._found[number] for number in sorted(self._found)]

    async def run(self, prompts: Iterable[tuple[ChosenPrompt, MissingCalls]], on_done: OnDone) -> str | None:
        """Do all prompts, in order; return why it stopped early, or None if it did not.

        Prompts that have begun are finished when it stops.
        """
        slots = asyncio.Semaphore(MOST_IN_HAND)
        n_done = 0

        async def job(number: int, chosen: ChosenPrompt, reservation: Reservation) -> None:
            nonlocal n_done
            try:
                await self._do(number, chosen, reservation)
            except StopCollectingError as error:
                self._stopped = self._stopped or str(error)
            finally:
                reservation.close()
                slots.release()
            n_done += 1
            on_done(n_done, self._budget.spent)

        async with asyncio.TaskGroup() as group:
            for number, (chosen, wanted) in enumerate(prompts):
                await slots.acquire()
                reservation = await self._budget.admit(wanted.worst(self._work, self._asker))
                if reservation is None:
                    self._stopped = self._stopped or "the budget allows no further prompt."
                if reservation is None or self._stopped:
                    break
                group.create_task(job(number, chosen, reservation))
        return self._stopped

    async def _do(self, number: int, chosen: ChosenPrompt, reservation: Reservation) -> None:
        found = self._found[number] = CollectedPrompt(chosen.sample)
        stops: list[StopCollectingError] = []

        async def answer(model: str) -> None:
            try:
                call = self._work.call(chosen.sample, model)
                found.answers[model] = chosen.logged.get(model) or await self._asker.ask(call, reservation)
            except CallFailedError as error:
                found.failures[model] = str(error)
            except StopCollectingError as error:
                found.failures[model] = "not asked"
                stops.append(error)

        async def grade(grader: Grader, model: str) -> None:
            try:
                verdict = await self._verdict(grader, found, model, reservation)
            except CallFailedError as error:
                found.failures[model] = str(error)
            except StopCollectingError as error:
                stops.append(error)
            else:
                found.verdicts[grader.name, model] = verdict

        async with asyncio.TaskGroup() as group:
            for model in self._work.models:
                group.create_task(answer(model))
        async with asyncio.TaskGroup() as group:
            for grader in self._work.graders:
                for model in self._work.panel.models:
                    if self._is_gradable(grader, found, model):
                        group.create_task(grade(grader, model))
        if stops:
            raise stops[0]

    def _is_gradable(self, grader: Grader, found: CollectedPrompt, model: str) -> bool:
        needed = [model, *map(self._work.name, grader.answers_of)]
        lacking = [name for name in needed if name not in found.answers]
        if lacking and model in found.answers:
            found.failures[model] = f"not graded, because {lacking[0]} has no answer"
        return not lacking

    async def _verdict(self, grader: Grader, found: CollectedPrompt, model: str, reservation: Reservation) -> Verdict:
        sample, answers = found.sample, found.answers
        known = stored_verdict(self._work, grader, sample, answers, model, self._store)
        if known is not None:
            return known
        context = _Context(self._work, self._asker, answers, reservation)
        verdict = await grader.grade(sample, answers[model], context)
        self._store.add_verdict(self._work.verdict_key(grader, sample, answers, model), verdict)
        if context.has_asked:
            self._note_judge(grader, verdict)
        return verdict

    def _note_judge(self, grader: Grader, verdict: Verdict) -> None:
        """Count how often in a row a judge said nothing usable, and stop if that is too often."""
        self._nonsense[grader.name] = 0 if verdict.score is not None else self._nonsense.get(grader.name, 0) + 1
        if self._nonsense[grader.name] >= MOST_NONSENSE_IN_A_ROW:
            why = (
                f"the judge that the grader {grader.name} asks gave no usable verdict {MOST_NONSENSE_IN_A_ROW} times "
                f"in a row; the last time {verdict.reason.rstrip('.')}. Choose another judge. All answers are kept."
            )
            self._stopped = self._stopped or why
            self._asker.stop(why)


class _Context:
    """What a grader may ask about one prompt."""

    def __init__(self, work: Work, asker: Asker, answers: Mapping[str, ModelAnswer], reservation: Reservation) -> None:
        self._work, self._asker, self._answers, self._reservation = work, asker, answers, reservation
        self.has_asked = False

    async def ask(self, model: str, messages: Sequence[Message], parameters: Mapping[str, Any]) -> ModelAnswer:
        self.has_asked = True
        chat = tuple(dict(message) for message in messages)
        call = AskedCall(model, chat, {"max_tokens": _JUDGE_TOKENS, **parameters})
        return await self._asker.ask(call, self._reservation)

    async def answer_of(self, model: str) -> ModelAnswer:
        return self._answers[self._work.name(model)]
