"""Report which model `elle fit --add` added to a probe, what its loss follows, and how well that fits its labels."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Console

from router.tuning.fitting.addition import Addition
from router.tuning.judging.fit_figures import ModelFigures


@dataclass(frozen=True)
class AddSummary:
    """Holds what was added, and how well labels left out were predicted.

    Attributes:
        out: where the probe was written. replaced: SHA-256 of the probe that was there before; None if there was none.
        identity: SHA-256 of the new probe. models: its models, the new one last.
        added: see `Addition`. figures: of the new model, on its labels left out.
        notes: what is odd about the labels, and what the new probe lacks.
        encode_s, fit_s: seconds.
    """

    out: str
    replaced: str | None
    identity: str
    models: tuple[str, ...]
    added: Addition
    figures: ModelFigures
    notes: tuple[str, ...]
    encode_s: float
    fit_s: float

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return asdict(self)


def print_added(summary: AddSummary, console: Console) -> None:
    """Print for people what was added and what the figures are of."""
    one, added = summary.figures, summary.added

    def say(line: str) -> None:
        console.print(line, highlight=False)

    say(added.describe())
    errors = ", ".join(f"{way} {error:.4f}" for way, error in added.errors.items())
    say(f"Mean squared error on labels left out: {errors}.")
    say(
        f"On these labels: mean score {one.mean_score:.3f}, Brier {one.brier:.3f}, ECE {one.ece:.3f}. "
        "The other models of the probe have not changed by a bit."
    )
    for note in summary.notes:
        say(f"Note: {note}.")
    say(
        f"Wrote {summary.out} (probe {summary.identity[:12]}, before {added.old_identity[:12]}). Tune policies with it "
        "on other prompts that the new model answered."
    )
