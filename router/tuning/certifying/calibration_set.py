"""Select the rows of traffic that a certificate may rest on: the fit did not see them, and all models are scored."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from probes.errors import DataError
from probes.probe import DifficultyProbe, fingerprints
from router.asking.ask import Ask, extract
from router.tuning.outcomes.datasets import HumanGrades, Outcomes
from router.tuning.outcomes.holdout import Holdout, left_out, row_keys, rows_to_fit
from router.tuning.outcomes.made_ids import has_made_id
from router.tuning.outcomes.records import MAX_PROMPT_BYTES
from router.values import RouteQuery

#: With fewer prompts no target that anybody asks for can be certified.
MIN_CALIBRATION = 50

#: If more than this share of the draws is misrepresented, the data are refused; docs/decisions/0003-certificate.md.
MAX_CHANGED = 0.1

#: The share of the rows that certify a policy without a probe; the others fit the maps of its score.
CERTIFYING_SHARE = 0.7

_ADVICE = (
    "Fit on another split: `elle fit DATA --holdout 0.4` leaves prompts out for this, or give `elle tune` data of its "
    "own."
)


@dataclass(frozen=True)
class CalibrationSet:
    """Holds the n rows of traffic that a certificate rests on, and how many rows are left out for each reason.

    Their order says nothing about their outcomes.

    Attributes:
        outcomes: one row per draw; texts may repeat, and every score is known.
        seen: rows whose text the probe was fitted on; they serve for defaults, never for a certificate.
        n_incomplete: the number of rows left out because some model has no score for them.
        n_seen_left_out: the number of draws left out because the fit saw their text; the certificate does not cover
            such requests.
        n_seen_kept: the number of draws of a separate calibration file that are kept although the fit saw their text.
        n_unused: the number of rows that neither the fit nor the certificate uses.
        n_repeated: the number of draws whose text an earlier draw has.
        changed_share: the share of the draws, 0 to 1, that the calibration prompts do not represent.
        n_informative: the number of rows left out because they were chosen for what they teach, and not at random.
    """

    outcomes: Outcomes
    seen: Outcomes
    n_incomplete: int
    n_seen_left_out: int
    n_seen_kept: int
    n_unused: int
    n_repeated: int
    changed_share: float
    n_informative: int = 0

    @property
    def asks(self) -> tuple[Ask, ...]:
        """The asks of the n prompts, as the router extracts them."""
        return self.outcomes.asks


def calibration_set(outcomes: Outcomes, probe: DifficultyProbe) -> CalibrationSet:
    """Return the calibration prompts among `outcomes`, which must hold exactly the models to route between.

    If `outcomes` are the data that the fit left rows out of, these rows are the calibration prompts. If they are other
    data, all rows are whose text the fit did not see.

    Raises DataError if the probe does not know the prompts of its fit, if no prompt has a score of every model, if
    fewer than MIN_CALIBRATION prompts remain, or if the prompts that remain do not represent the data.
    """
    _require_memory(probe)
    rows, complete = _complete(outcomes)
    seen = np.isin(fingerprints(complete.texts), probe.fitted_on)
    split = Holdout.of_card(probe.card)
    ours = split is not None and split.is_of(outcomes)
    drawn = ~_informative(complete)
    if split and ours:
        drawn &= split.rows(outcomes)[rows]
    kept = drawn & ~seen
    if kept.sum() < MIN_CALIBRATION:
        raise DataError(
            f"at least {MIN_CALIBRATION} different prompts that the probe was not fitted on must remain, got "
            f"{kept.sum()}: {int(seen.sum()):,} of {len(complete):,} were used in its fit. {_ADVICE}"
        )
    fitted = {source.sha256 for source in probe.card.data}
    split_elsewhere = not ours and any(source.sha256 in fitted for source in outcomes.sources)
    left = np.zeros(len(rows), dtype=np.bool_) if split_elsewhere else seen & drawn
    # If the data of the fit were split outside of `elle fit`, they were split by text: then all rows of a repeated text
    # are on one side, and every repeated text is misrepresented.
    changed = (_repeats(complete.texts) if split_elsewhere else seen)[drawn]
    changed_share = float(changed.mean())
    if changed_share > MAX_CHANGED:
        raise DataError(
            f"the calibration prompts must be like the data; for {changed_share:.0%} of the rows they are not, because "
            f"the fit saw their text (of {int(seen.sum()):,} of {len(complete):,} rows). If these rows are other "
            "requests than those of the fit, give them as --calibration FILE, which is kept whole. If they are "
            "the fit's own, fit with `elle fit DATA --holdout 0.4` and give `elle tune` the very same file."
        )
    return _set(
        complete,
        kept=kept,
        seen=seen,
        n_incomplete=len(outcomes) - len(complete),
        n_seen_left_out=int(left.sum()),
        changed_share=changed_share,
    )


def whole_calibration_set(outcomes: Outcomes, probe: DifficultyProbe, fitted: Outcomes | None) -> CalibrationSet:
    """Return all rows of a separate calibration file, including those whose text the fit saw.

    A row whose text the fit saw is a draw of the traffic like any other, provided that it is another request than those
    of the fit. fitted: the data of the fit, for defaults; None if they are not at hand.

    Raises DataError as `calibration_set` does, and for a file that the probe was fitted on.
    """
    if both := {s.sha256 for s in outcomes.sources} & {s.sha256 for s in probe.card.data}:
        names = ", ".join(s.name for s in outcomes.sources if s.sha256 in both)
        raise DataError(
            f"--calibration must hold requests that the probe was not fitted on; it was fitted on {names}. Give that "
            "file as DATA, where what the fit left out is found, or give other requests."
        )
    _require_memory(probe)
    _, complete = _complete(outcomes)
    if len(complete) < MIN_CALIBRATION:
        raise DataError(
            f"--calibration must hold at least {MIN_CALIBRATION} prompts with a score of every model, got "
            f"{len(complete)}. Add outcomes."
        )
    seen = np.isin(fingerprints(complete.texts), probe.fitted_on)
    none = np.zeros(len(complete), dtype=np.bool_)
    at_random = ~_informative(complete)
    if at_random.sum() < MIN_CALIBRATION:
        raise DataError(
            f"--calibration must hold at least {MIN_CALIBRATION} prompts that were drawn at random, got "
            f"{at_random.sum()} of {len(complete):,}; the column `drawn` says of the others that they were not."
        )
    found = _set(complete, kept=at_random, seen=none, n_incomplete=len(outcomes) - len(complete))
    found = replace(found, n_seen_kept=int((seen & at_random).sum()))
    if fitted is None:
        return found
    _, others = _complete(fitted)
    known = np.flatnonzero(np.isin(fingerprints(others.texts), probe.fitted_on))
    return replace(found, seen=others.take(known))


def split_calibration_set(outcomes: Outcomes, separate: Outcomes | None) -> CalibrationSet:
    """Return the calibration prompts for a policy without a probe; `seen` are those that its maps are fitted on.

    CERTIFYING_SHARE of the rows certify, drawn as `elle fit --holdout` draws them, and the fit does without every row
    that repeats one of their texts. separate: a file of its own whose rows all certify; then all `outcomes` are fitted.

    Raises DataError if fewer than MIN_CALIBRATION prompts remain for either, or if both are the same file.
    """
    rows, complete = _complete(outcomes)
    if separate is None:
        kept = left_out(outcomes, CERTIFYING_SHARE)[rows]
        fitted = rows_to_fit(complete, kept)
        found = _set(complete, kept=kept, seen=fitted & ~kept, n_incomplete=len(outcomes) - len(complete))
    else:
        if both := {s.sha256 for s in separate.sources} & {s.sha256 for s in outcomes.sources}:
            names = ", ".join(s.name for s in separate.sources if s.sha256 in both)
            raise DataError(f"--calibration must hold other requests than DATA; {names} is among both.")
        _, own = _complete(separate)
        none = np.zeros(len(own), dtype=np.bool_)
        found = _set(own, kept=~_informative(own), seen=none, n_incomplete=len(separate) - len(own))
        found = replace(found, seen=complete)
    for what, prompts in (("that certify", found.outcomes), ("that fit the maps of the score", found.seen)):
        if len(prompts) < MIN_CALIBRATION:
            raise DataError(f"at least {MIN_CALIBRATION} prompts {what} must remain, got {len(prompts)}. Add outcomes.")
    return found


def _require_memory(probe: DifficultyProbe) -> None:
    if not probe.fitted_on.size:
        raise DataError(
            "the probe must know which prompts it was fitted on, and this one does not; fit it again with `elle fit`."
        )


def _complete(outcomes: Outcomes) -> tuple[npt.NDArray[np.intp], Outcomes]:
    """Return the numbers of the rows with a score of every model, and these rows, ordered by a hash of id and text.

    Betting bounds need an order that does not depend on the losses, and files are often sorted by outcome. The order
    must not put equal texts next to each other either, or a bet could learn about one draw from another.
    """
    paired = _paired_by_chance(outcomes)
    rows = np.flatnonzero(np.isfinite(paired.scores).all(axis=1))
    if not rows.size:
        counts = np.isfinite(outcomes.scores).sum(axis=0)
        having = ", ".join(f"{model} {count:,}" for model, count in zip(outcomes.models, counts, strict=True))
        raise DataError(f"some prompts must have a score of every model, none has (prompts scored: {having}).")
    keys = row_keys(outcomes)
    rows = rows[np.argsort(fingerprints([keys[row] for row in rows]), kind="stable")]
    return rows, paired.take(rows)


def _paired_by_chance(outcomes: Outcomes) -> Outcomes:
    """Return the outcomes after a random assignment of labels to the rows of equal texts that have no id.

    Nothing in the data says which labels of such a text belong to one draw. In the order of a file that is sorted by
    outcome, bad answers of both models would be paired, and their difference would seem to vary less than it does.
    """
    tasks = outcomes.tasks or ("",) * len(outcomes)
    places: dict[tuple[str, str], list[int]] = defaultdict(list)
    for row, (text, id_) in enumerate(zip(outcomes.texts, outcomes.ids, strict=True)):
        if has_made_id(text, id_):
            places[text, tasks[row]].append(row)
    humans = outcomes.humans
    values = [getattr(outcomes, name).copy() for name in _LABELS]
    values += [humans.scores.copy(), humans.at_random.copy()] if humans else []
    for (text, _), same in places.items():
        if len(same) > 1:
            if outcomes.caller_scores.size and len(set(outcomes.caller_scores[same].tolist())) > 1:
                raise DataError(
                    "requests of the same text must have a prompt_id each if their scores differ: without one nothing "
                    "says which score belongs to which answer."
                )
            rng = np.random.default_rng(int(fingerprints([text])[0]))
            for column in range(len(outcomes.models)):
                known = [row for row in same if np.isfinite(outcomes.scores[row, column])]
                mixed = rng.permutation(known)
                for table in values:
                    table[known, column] = table[mixed, column]
    paired = replace(outcomes, **dict(zip(_LABELS, values, strict=False)))
    return replace(paired, humans=HumanGrades(values[-2], values[-1])) if humans else paired


_LABELS = ("scores", "cost_usd", "input_tokens", "output_tokens")


def _set(
    complete: Outcomes,
    *,
    kept: npt.NDArray[np.bool_],
    seen: npt.NDArray[np.bool_],
    n_incomplete: int,
    n_seen_left_out: int = 0,
    changed_share: float = 0.0,
) -> CalibrationSet:
    informative = _informative(complete)
    chosen = _with_asks(complete.take(np.flatnonzero(kept)))
    return CalibrationSet(
        outcomes=chosen,
        seen=complete.take(np.flatnonzero(seen)),
        n_incomplete=n_incomplete,
        n_seen_left_out=n_seen_left_out,
        n_seen_kept=0,
        n_unused=int((~kept & ~seen & ~informative).sum()),
        n_informative=int((informative & ~seen).sum()),
        n_repeated=len(chosen) - len(set(chosen.texts)),
        changed_share=changed_share,
    )


def _informative(outcomes: Outcomes) -> npt.NDArray[np.bool_]:
    return outcomes.informative if outcomes.informative.size else np.zeros(len(outcomes), dtype=np.bool_)


def _repeats(texts: tuple[str, ...]) -> npt.NDArray[np.bool_]:
    """Return booleans (n,) that are True for a text that occurs more than once."""
    _, inverse, counts = np.unique(fingerprints(texts), return_inverse=True, return_counts=True)
    return np.asarray(counts[inverse] > 1)


def _with_asks(outcomes: Outcomes) -> Outcomes:
    if outcomes.asks or not len(outcomes):
        return outcomes
    queries = (RouteQuery.from_prompt(text) for text in outcomes.texts)
    return replace(outcomes, asks=tuple(extract(query, max_bytes=MAX_PROMPT_BYTES) for query in queries))
