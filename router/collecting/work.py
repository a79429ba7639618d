"""Say what one prompt needs: whose answers, which of them are known, and what the rest costs at most (`Work`)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from router.collecting.calls.asking import AskedCall, Asker
from router.collecting.calls.budget import NOTHING, Cost
from router.collecting.calls.panel import Panel
from router.collecting.calls.store import CallStore, digest
from router.collecting.graders.base import Grader, PlannedCall
from router.collecting.graders.naming import grader_names
from router.collecting.sampling import ChosenPrompt
from router.collecting.values import ModelAnswer, Sample, Verdict

#: Bytes of a token of text, at most, of what a grader plans to put to a judge: reservations are made in bytes.
_BYTES_PER_PLANNED_TOKEN = 4


@dataclass(frozen=True)
class Work:
    """What is done with every chosen prompt.

    Attributes:
        panel: who answers.
        graders: who grades each answer of a candidate.
        parameters: what candidates are asked with, `max_tokens` among it.
    """

    panel: Panel
    graders: tuple[Grader, ...]
    parameters: Mapping[str, Any]

    @property
    def models(self) -> tuple[str, ...]:
        """The models whose answers are needed: the candidates, and those that a grader compares them with."""
        further = (self.name(model) for grader in self.graders for model in grader.answers_of)
        return tuple(dict.fromkeys((*self.panel.models, *further)))

    def name(self, model: str) -> str:
        """Return the name in outcomes of a model that goes by any of its names."""
        return self.panel.member(model).name_in_probe

    def call(self, sample: Sample, model: str) -> AskedCall:
        """Return the call that asks a model for its answer to a prompt."""
        return AskedCall(model, tuple(dict(message) for message in sample.messages), self.parameters)

    def verdict_key(self, grader: Grader, sample: Sample, answers: Mapping[str, ModelAnswer], model: str) -> str:
        """Return the digest of everything that the verdict on a model's answer depends on."""
        answer = answers[model]
        compared = [answers[self.name(other)].text for other in grader.answers_of]
        feedback = sample.feedback.get(model)
        facts = [list(sample.messages), sample.reference, sample.choices, sample.tests]
        said = None if feedback is None else [feedback.kind, feedback.value]
        return digest(
            "verdict", grader.name, grader.version, facts, model, said, answer.text, answer.mean_token_loss, compared
        )


@dataclass(frozen=True)
class MissingCalls:
    """Lists the answers and verdicts that one prompt still lacks.

    Attributes:
        calls: the answers to ask for.
        judging: the calls of judges that grading may need at most, by estimates of the graders.
        likely: those of them that are expected if judges answer as they are told: no repeats, no question about whether
            an answer equals itself, and answers of usual length.
        logged, stored: the models whose answers the log and the store have.
    """

    calls: tuple[AskedCall, ...]
    judging: tuple[PlannedCall, ...]
    likely: tuple[PlannedCall, ...]
    logged: tuple[str, ...]
    stored: tuple[str, ...]

    def worst(self, work: Work, asker: Asker) -> Cost:
        """Return what the prompt can cost at most; a judge that is put more than was planned asks for more later."""
        total = NOTHING
        for call in self.calls:
            total += asker.worst(call)
        for planned in self.judging:
            prices = work.panel.prices(work.panel.member(planned.model))
            tokens = planned.input_tokens * _BYTES_PER_PLANNED_TOKEN
            total += Cost.of_call(prices, tokens, planned.output_tokens)
        return total


def missing(work: Work, chosen: ChosenPrompt, asker: Asker, store: CallStore) -> MissingCalls:
    """Return what has to be asked for one prompt."""
    known: dict[str, ModelAnswer] = {}
    calls = []
    for model in work.models:
        call = work.call(chosen.sample, model)
        found = chosen.logged.get(model) or asker.stored(call)
        if found is None:
            calls.append(call)
        else:
            known[model] = found
    ungraded = tuple(_ungraded(work, chosen.sample, known, store))
    most = int(work.parameters["max_tokens"])
    judging = tuple(call for grader, _ in ungraded for call in grader.calls(chosen.sample, most))
    likely = tuple(call for grader, model in ungraded for call in _likely(work, chosen.sample, grader, model, most))
    logged = tuple(model for model in work.models if model in chosen.logged)
    stored = tuple(model for model in known if model not in logged)
    return MissingCalls(tuple(calls), judging, likely, logged, stored)


def _ungraded(
    work: Work, sample: Sample, known: Mapping[str, ModelAnswer], store: CallStore
) -> Iterator[tuple[Grader, str]]:
    """Yield each grader that asks a judge with each candidate whose answer it has not graded yet."""
    for grader in work.graders:
        for model in work.panel.models if grader.models else ():
            if stored_verdict(work, grader, sample, known, model, store) is None:
                yield grader, model


def _likely(work: Work, sample: Sample, grader: Grader, model: str, most: int) -> Iterator[PlannedCall]:
    compared = tuple(map(work.name, grader.answers_of))
    if model in compared:
        return
    length = max(work.panel.member(name).expected_output_tokens for name in (model, *compared))
    for call in grader.calls(sample, min(length, most)):
        if not call.is_repeat:
            usual = work.panel.member(call.model).expected_output_tokens
            yield replace(call, output_tokens=min(usual, call.output_tokens))


def stored_verdict(
    work: Work, grader: Grader, sample: Sample, answers: Mapping[str, ModelAnswer], model: str, store: CallStore
) -> Verdict | None:
    """Return the verdict on a model's answer if all that it depends on is known and the store has it."""
    needed = [model, *map(work.name, grader.answers_of)]
    if any(name not in answers for name in needed):
        return None
    return store.verdict(work.verdict_key(grader, sample, answers, model))


def graders_for(samples: Sequence[Sample]) -> tuple[str, ...]:
    """Return the names of the graders that fit the columns of these prompts, if none are named."""
    if any(sample.choices for sample in samples) and "choice" in grader_names():
        return ("choice",)
    return ("exact",) if any(sample.reference for sample in samples) else ()
