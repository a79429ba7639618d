"""`elle import`: outcomes kept by other programs, brought into the long form that `elle fit` reads."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from probes.errors import DataError
from router.tuning.outcomes.adapters.benchmarks import read_mmlu_pro, read_routellm, read_routerbench
from router.tuning.outcomes.adapters.files import Answer, expand, read_scores, write_outcomes
from router.tuning.outcomes.adapters.logs import read_langfuse, read_litellm_spend_logs, read_openai_batch

KINDS = ("routellm", "routerbench", "mmlu-pro", "openai-batch", "litellm-spend-logs", "langfuse")

#: Kinds whose records do not say how good an answer was.
_SCORES_FROM_FILE = {"openai-batch": read_openai_batch, "litellm-spend-logs": read_litellm_spend_logs}
_SCORES_INSIDE = {"routellm": read_routellm, "routerbench": read_routerbench, "mmlu-pro": read_mmlu_pro}


@dataclass(frozen=True)
class ImportSummary:
    """What came in: files read, answers and prompts written, answers by model, and what was left out and why."""

    kind: str
    out: str
    n_files: int
    n_answers: int
    n_prompts: int
    models: dict[str, int]
    left_out: dict[str, int]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)

    def print(self, console: Console) -> None:
        """For people."""
        console.print(
            f"Wrote {self.n_answers:,} answers to {self.n_prompts:,} prompts from {self.n_files} files to {self.out}.",
            highlight=False,
        )
        for model, count in self.models.items():
            console.print(f"  {model}: {count:,}", highlight=False)
        for why, count in self.left_out.items():
            console.print(f"  left out, {why}: {count:,}", highlight=False)


def import_command(
    kind: str,
    paths: Sequence[Path],
    out: Path,
    *,
    scores: Path | None = None,
    score_name: str | None = None,
    score_range: tuple[float, float] | None = None,
) -> ImportSummary:
    """What `elle import` does; one of KINDS. Raises DataError and writes nothing where something is wrong.

    scores: file with the scores of answers, for kinds that hold none. score_name: which of a Langfuse export's scores.
    score_range: scores of the source run from the first to the second of these and are brought to 0 to 1.
    """
    files = expand(paths)
    if scores is not None and kind not in _SCORES_FROM_FILE:
        raise DataError(f"--scores is for {', '.join(_SCORES_FROM_FILE)}; {kind} brings its own.")
    if score_name is not None and kind != "langfuse":
        raise DataError(f"--score-name is for langfuse; got {kind}.")
    answers, left_out = _read(kind, files, read_scores(scores) if scores else {}, score_name)
    if not answers:
        reasons = ", ".join(f"{count} {why}" for why, count in left_out.items()) or "no records"
        raise DataError(f"{kind}: no answer with a prompt and a score in {len(files)} files ({reasons}).")
    if score_range is not None:
        answers = _rescaled(answers, *score_range)
    outcomes = write_outcomes(answers, out)
    return ImportSummary(
        kind=kind,
        out=str(out),
        n_files=len(files),
        n_answers=len(answers),
        n_prompts=len(outcomes),
        models=dict(sorted(Counter(answer.model for answer in answers).items())),
        left_out=dict(left_out),
    )


def _read(
    kind: str, files: Sequence[Path], scores: dict[str, float], score_name: str | None
) -> tuple[list[Answer], Counter[str]]:
    if kind in _SCORES_INSIDE:
        return _SCORES_INSIDE[kind](files)
    if kind in _SCORES_FROM_FILE:
        return _SCORES_FROM_FILE[kind](files, scores)
    if kind == "langfuse":
        return read_langfuse(files, score_name)
    raise DataError(f"kind must be one of {', '.join(KINDS)}; got {kind!r}.")


def _rescaled(answers: Sequence[Answer], low: float, high: float) -> list[Answer]:
    if not low < high:
        raise DataError(f"--score-range must be the lowest and the highest score, in this order; got {low} {high}.")
    return [replace(answer, score=(answer.score - low) / (high - low)) for answer in answers]
