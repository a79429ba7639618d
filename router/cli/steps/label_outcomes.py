"""The steps of `elle label`: find what to ask, ask or exchange a sheet, report the agreement, write the outcomes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from probes.atomic_write import write_file
from router.collecting.labelling.asking_people import ask_people
from router.collecting.labelling.journal import Journal
from router.collecting.labelling.judge_agreement import JudgeAgreement, measure_agreement
from router.collecting.labelling.questions import HumanQuestion, Questions
from router.collecting.labelling.sheet import read_sheet, write_sheet
from router.plain_json import json_lines

#: Groups that the text of a report lists; JSON lists all.
_MOST_GROUPS = 20


@dataclass(frozen=True)
class Labelling:
    """Holds the files and options that the user gives to `elle label`.

    Attributes:
        outcomes: the file of graded outcomes.
        labels: the file that keeps the labels; it is made if need be.
        n_prompts: the most prompts to ask about.
        sheet_out, sheet_in: a sheet to write, and one to read; None for none.
        out: where to write the outcomes with human grades; None for nowhere.
        screen: how to ask on a terminal, as functions that read a key and show a text; None to ask nothing.
    """

    outcomes: Path
    labels: Path
    n_prompts: int
    sheet_out: Path | None
    sheet_in: Path | None
    out: Path | None
    screen: tuple[Callable[[], str], Callable[[str], None]] | None


@dataclass(frozen=True)
class LabellingResult:
    """Holds how many questions were answered, and how far the grader agrees with people, when `elle label` ends.

    Attributes:
        n_questions: questions about the prompts that were asked for, and further ones that have an answer.
        n_open: those that nothing was said of.
        n_skipped: those that were skipped.
        n_prompts: prompts of which every answer has a human grade.
        n_passed_over: prompts before the last graded one in the random order that lack a grade.
        agreement: how far the grader agrees with people, by `all`, `model` and `group`.
    """

    n_questions: int
    n_open: int
    n_skipped: int
    n_prompts: int
    n_passed_over: int
    agreement: dict[str, dict[str, JudgeAgreement]]

    def to_dict(self) -> dict[str, Any]:
        """Return the figures for JSON."""
        parts = {kind: {name: one.to_dict() for name, one in named.items()} for kind, named in self.agreement.items()}
        counts = {name: getattr(self, name) for name in self.__dataclass_fields__ if name != "agreement"}
        return counts | {"agreement": parts}

    def lines(self) -> list[str]:
        """Return the report as sentences."""
        answered = self.n_questions - self.n_open - self.n_skipped
        said = [
            f"{answered:,} of {self.n_questions:,} questions are answered, {self.n_skipped:,} skipped; people graded "
            f"{self.n_prompts:,} prompts for every model."
        ]
        for one in self.agreement["all"].values():
            said.append(f"The grader agrees with people on {_share(one)}.")
            said.append(f"Its mean score is {one.grader_mean:.3f}, that of people {one.human_mean:.3f}.")
        for kind in ("model", "group"):
            said += [
                f"  {kind} {name}: {_share(one)}" for name, one in list(self.agreement[kind].items())[:_MOST_GROUPS]
            ]
            if (more := len(self.agreement[kind]) - _MOST_GROUPS) > 0:
                said.append(f"  and {more:,} more; --json lists all.")
        if n := self.n_passed_over:
            said.append(
                f"{n:,} prompt{'s were' if n > 1 else ' was'} passed over. A certificate about people then speaks of "
                "prompts that people do not pass over."
            )
        return said


def _share(one: JudgeAgreement) -> str:
    kappa = "no kappa" if one.kappa is None else f"kappa {one.kappa:.2f}"
    return f"{one.n_agree:,} of {one.n:,} answers ({one.n_agree / one.n:.3f}, {one.low:.3f} to {one.high:.3f}; {kappa})"


def label_outcomes(labelling: Labelling) -> LabellingResult:
    """Let people grade answers as the options say, and return how far they are and how far the grader agrees.

    Raises DataError and ArtifactError; what a person said until then is kept.
    """
    with Journal(labelling.labels) as journal:
        questions = Questions.read(labelling.outcomes, journal.seed)
        journal.begin()
        asked = questions.of_prompts(labelling.n_prompts)
        if labelling.sheet_in is not None:
            for question, score in read_sheet(labelling.sheet_in, questions.questions).items():
                journal.record(question, score)
        if labelling.sheet_out is not None:
            write_sheet(labelling.sheet_out, [one for one in asked if one.id not in journal.said])
        if labelling.screen is not None:
            ask_people(asked, journal, *labelling.screen)
        rows = questions.labelled(journal.scores)
        if labelling.out is not None:
            text = json_lines(rows)
            write_file(labelling.out, text.encode("utf-8", "backslashreplace"))
        return _labelled(questions, asked, journal, rows)


def _labelled(
    questions: Questions, asked: Sequence[HumanQuestion], journal: Journal, rows: Sequence[dict[str, Any]]
) -> LabellingResult:
    counted = {one.id for one in asked} | journal.said.keys()
    said = list(journal.said.values())
    graded, passed_over = questions.progress(journal.scores)
    return LabellingResult(
        n_questions=len(counted),
        n_open=len(counted) - len(said),
        n_skipped=said.count(None),
        n_prompts=graded,
        n_passed_over=passed_over,
        agreement=measure_agreement(rows),
    )
