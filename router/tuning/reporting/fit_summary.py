"""Report what `elle fit` fitted, on what data, and how well it predicts prompts left out."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Console
from rich.table import Table

from probes.probe import DataSource
from router.tuning.fitting.adaptation import AdaptedFrom
from router.tuning.judging.fit_figures import FitFigures
from router.tuning.judging.probe_evaluation import PROBE
from router.tuning.reporting.evaluation_text import print_rankings


@dataclass(frozen=True)
class FitSummary:
    """Holds what was fitted, on what data, and its figures on prompts left out.

    Attributes:
        out: where the probe was written. replaced: SHA-256 of the probe that was there before; None if there was none.
        identity: SHA-256 of the probe.
        n_prompts: prompts with any label. n_texts: distinct texts among them. n_features: width of the features.
        n_held_out: further prompts, left out on purpose for `elle tune`. n_set_aside: prompts that repeat the text of
            a prompt left out, so that the fit may not see them.
        alpha: ridge penalty.
        figures: see `FitFigures`.
        notes: further remarks on the models: which are left out, have few labels, or have equal labels.
        data: the files, with their SHA-256 and number of rows.
        adapted_from: the probe that this one was adapted from; None if it was fitted from scratch.
        split: how prompts were left out for the figures, in words.
        encode_s, fit_s: seconds.
    """

    out: str
    replaced: str | None
    identity: str
    n_prompts: int
    n_held_out: int
    n_set_aside: int
    n_texts: int
    n_features: int
    alpha: float
    figures: FitFigures
    notes: tuple[str, ...]
    data: tuple[DataSource, ...]
    adapted_from: AdaptedFrom | None
    split: str
    encode_s: float
    fit_s: float

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values, the figures at the top level."""
        values: dict[str, Any] = {}
        for name, value in asdict(self).items():
            if name == "figures":
                pair = self.figures.pair.to_dict() if self.figures.pair else None
                values |= {"models": value["models"], "pair": pair, "pair_note": self.figures.pair_note}
            else:
                values[name] = value
        return values


def print_fit(summary: FitSummary, console: Console) -> None:
    """Print for people what was measured, and what the figures do not say."""
    figures = summary.figures

    def say(line: str) -> None:
        console.print(line, highlight=False)

    say(
        f"Fitted {len(figures.models)} models on {summary.n_prompts:,} prompts ({summary.n_texts:,} distinct), "
        f"{summary.n_features} features, alpha {summary.alpha:g}, in {summary.fit_s:.1f} s after "
        f"{summary.encode_s:.1f} s of encoding."
    )
    if summary.adapted_from is not None:
        say(summary.adapted_from.describe())
    say(f"On prompts left out ({summary.split}):")
    console.print(_model_table(summary))
    if (pair := figures.pair) is not None:
        title = f"Gain of {pair.strong} over {pair.weak}, {pair.n:,} prompts left out"
        print_rankings(console, title, {PROBE: pair.ranking, **pair.baselines})
    for note in (*([figures.pair_note] if figures.pair_note else []), *summary.notes):
        say(f"Note: {note}.")
    console.print("Left-out prompts resemble fitted ones; expect less on new kinds of prompts.", style="dim")
    if summary.n_held_out:
        say(f"{summary.n_held_out:,} prompts were left out; `elle tune` on the same data certifies with them.")
    if summary.n_set_aside:
        repeats = "prompt repeats" if summary.n_set_aside == 1 else "prompts repeat"
        say(f"{summary.n_set_aside:,} more {repeats} the text of one of these, so the fit did not use them either.")
    replaced = summary.replaced
    instead = f", in place of probe {replaced[:12]}" if replaced not in {None, summary.identity} and replaced else ""
    say(f"Wrote {summary.out} (probe {summary.identity[:12]}){instead}.")


def _model_table(summary: FitSummary) -> Table:
    table = Table(box=None)
    table.add_column("model")
    for header in ("prompts", "mean score", "r of loss", "AUROC", "Brier", "ECE"):
        table.add_column(header, justify="right")
    for name, one in summary.figures.models.items():
        values = (one.mean_score, one.pearson_r, one.auroc, one.brier, one.ece)
        table.add_row(name, f"{one.n:,}", *("-" if value is None else f"{value:.3f}" for value in values))
    return table
