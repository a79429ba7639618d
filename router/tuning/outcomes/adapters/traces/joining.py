"""Join the calls of models in traces with the feedback that was given on a call, or on a whole trace."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from router.tuning.outcomes.adapters.collection import REPEATED, Collection, ImportedAnswer, RawScore
from router.tuning.outcomes.adapters.named_scores import ScoredAnswer

_OF_SEVERAL = "scored only on a trace of several calls"
_UNUSED = "feedback that belongs to no call of these files"

#: Scores by their name.
Named = Mapping[str, Sequence[RawScore]]


@dataclass(frozen=True)
class TracedCall:
    """Holds one call of a model: its answer, its id, the id of its trace, and the scores that stand in its record."""

    answer: ImportedAnswer
    key: str
    trace: str
    scores: Named = field(default_factory=dict)


class TraceFeedback:
    """Collects scores by the id of the call or of the trace that they were given on."""

    def __init__(self) -> None:
        self._by_id: dict[str, dict[str, list[RawScore]]] = defaultdict(lambda: defaultdict(list))

    def add(self, key: str, raw: RawScore) -> None:
        """Add a score that was given on the call or the trace with this id."""
        self._by_id[key][raw.name].append(raw)

    def on(self, key: str) -> Named:
        """Return the scores that were given on this id, by name."""
        return self._by_id.get(key, {})

    @property
    def ids(self) -> set[str]:
        """The ids that scores were given on."""
        return set(self._by_id)


def join_feedback(calls: Sequence[TracedCall], feedback: TraceFeedback, collection: Collection) -> list[ScoredAnswer]:
    """Return each call with its scores: its own and those given on it, or else those on its trace.

    The scores of a trace count only if the call is the only one of it, because nobody knows which call earned them.
    Calls that came twice are left out, and feedback on no call is counted in a note.
    """
    per_trace = Counter(call.trace for call in calls)
    known: set[str] = set()
    used: set[str] = set()
    found = []
    for call in calls:
        if call.key and call.key in known:
            collection.leave_out(call.answer.place, REPEATED, call.key)
            continue
        known.add(call.key)
        scores = {**feedback.on(call.key), **call.scores}
        answer = call.answer
        used |= {call.key}
        if not scores and call.trace != call.key:
            of_trace = feedback.on(call.trace)
            used |= {call.trace}
            alone = per_trace[call.trace] == 1
            scores = dict(of_trace) if alone else {}
            answer = answer if alone or not of_trace else replace(answer, why_no_score=_OF_SEVERAL)
        found.append(ScoredAnswer(answer, scores))
    collection.notes[_UNUSED] += len(feedback.ids - used)
    return found


def label_or_score(score: object, label: object, source: str, name: str) -> RawScore:
    """Return feedback as a score: its number if it has one, or else its label, which needs a score map."""
    if score is None and label is not None:
        return RawScore(label, source, name, is_label=True)
    return RawScore(score, source, name)
