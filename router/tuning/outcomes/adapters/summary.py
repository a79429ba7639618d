"""Report what `elle import` wrote, what it read as score, and what it left out."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Console

from router.tuning.outcomes.adapters.scores import ScoreSummary


@dataclass(frozen=True)
class ImportSummary:
    """Holds what an import wrote, what it read as score, and what it left out.

    Attributes:
        format, out: arguments of the import. n_files: files read. n_answers, n_prompts: how many were written.
        models: answers of each model.
        score: what was read as score, with its range and examples.
        left_out: records left out, by reason. left_out_file: their list; None if nothing was left out.
        notes: further remarks, in words.
    """

    format: str
    out: str
    n_files: int
    n_answers: int
    n_prompts: int
    models: dict[str, int]
    score: ScoreSummary
    left_out: dict[str, int]
    left_out_file: str | None
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return asdict(self)


def print_import(summary: ImportSummary, console: Console) -> None:
    """Print for people what came in, what was read as score, and what was left out."""

    def say(line: str) -> None:
        console.print(line, highlight=False)

    files = "1 file" if summary.n_files == 1 else f"{summary.n_files} files"
    say(f"Wrote {summary.n_answers:,} answers to {summary.n_prompts:,} prompts from {files} to {summary.out}.")
    for model, count in summary.models.items():
        say(f"  {model}: {count:,}")
    for line in _score_lines(summary.score):
        say(line)
    for why, count in summary.left_out.items():
        say(f"  left out, {why}: {count:,}")
    if summary.left_out_file is not None:
        say(f"  listed in {summary.left_out_file}")
    for note in summary.notes:
        say(f"  note: {note}")


def _score_lines(score: ScoreSummary) -> list[str]:
    sources = "; ".join(f"{source} ({count:,})" for source, count in score.sources.items())
    mapped = f", through {score.mapped_by}" if score.mapped_by else ""
    written = "" if score.written_low is None else f", written {score.written_low:g} to {score.written_high:g}"
    first = f"Read as score{mapped}: {sources}. From {score.low:g} to {score.high:g}, mean {score.mean:.3f}{written}."
    return [first, *(f"  {one.where}: {one.written} is {one.read_as:g}" for one in score.examples)]
