"""Draw the pictures of a report, each as the bytes of a PNG.

Only this file loads matplotlib, and it needs no display.
"""

from __future__ import annotations

import io
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from probes.encoders.files import default_cache_dir
from probes.measures.bootstrap import PERCENTILES
from probes.measures.prediction import reliability_curve
from router.tuning.judging.learning_curve import LearningPoint
from router.tuning.judging.ranking import RouterScores, Truth, curve_band, text_weights
from router.tuning.judging.slices import Slice
from router.tuning.reporting.threshold_marker import ThresholdMarker

FloatArray = npt.NDArray[np.float64]

_BLUE, _GREY, _RED, _GREEN = "#1f5fbf", "#8a8f98", "#c0392b", "#2e8b57"
_OTHERS = ("#e08e0b", "#8e44ad", "#16a085", "#d35480", "#7f6a3d", "#3aa0d8", "#9aa524", "#555555")
_DPI = 150


@dataclass(frozen=True)
class ThresholdCurve:
    """Holds how much quality each threshold on the gain loses, and how many prompts it sends to the weak model.

    Attributes:
        threshold: (k,) ascending. weak_share: (k,) share of prompts that go to the weak model, 0 to 1.
        loss: (k,) quality lost against always strong. low, high: (k,) its pointwise 95 % band.
    """

    threshold: FloatArray
    weak_share: FloatArray
    loss: FloatArray
    low: FloatArray
    high: FloatArray


def threshold_curve(gain: FloatArray, truth: Truth, *, resamples: int = 500, seed: int = 0) -> ThresholdCurve:
    """Return quality lost and weak share for thresholds at 101 quantiles of the gain.

    Whole texts are resampled for the band.
    """
    thresholds = np.unique(np.quantile(gain, np.linspace(0, 1, 101)))
    order = np.argsort(gain, kind="stable")
    ends = np.searchsorted(gain[order], thresholds, side="right")
    drop = (truth.scores[:, 1] - truth.scores[:, 0])[order]

    def losses(weight: npt.NDArray[np.int64]) -> FloatArray:
        drawn = weight[order]
        return np.asarray(np.concatenate([[0.0], np.cumsum(drawn * drop)])[ends] / drawn.sum())

    whole, *draws = (losses(weight) for weight in text_weights(truth.texts, resamples, seed))
    low, high = np.quantile(draws, PERCENTILES, axis=0)
    return ThresholdCurve(thresholds, ends / len(gain), whole, low, high)


def cost_quality_chart(
    routers: Mapping[str, RouterScores], truth: Truth, models: Sequence[str], *, highlight: str, seed: int = 0
) -> bytes:
    """Draw quality over cost (or strong share) of every router, with the band of the one to highlight."""
    figure, axes = _figure(8.2, 5.2)
    in_usd = truth.costs is not None
    scale = 1000.0 if in_usd else 1.0
    cost, quality, low, high = curve_band(routers[highlight], truth, seed=seed)
    axes.plot(cost * scale, quality, color=_BLUE, lw=2.4, zorder=3, label=_plain(highlight))
    axes.fill_between(cost * scale, low, high, color=_BLUE, alpha=0.15, lw=0, label="its pointwise 95 % interval")
    ends = (cost[[0, -1]] * scale, quality[[0, -1]])
    plain = [name for name in routers if name not in {highlight, "random", "oracle"}]
    colours = {name: _OTHERS[i % len(_OTHERS)] for i, name in enumerate(plain)}
    for name in (name for name in routers if name != highlight):
        cost, quality, _, _ = curve_band(routers[name], truth, resamples=2, seed=seed)
        style = {"oracle": ":", "random": "--"}.get(name, "-")
        label = _plain(name.replace("_", " "))
        axes.plot(cost * scale, quality, style, color=colours.get(name, _GREY), lw=1.1, label=label)
    # The legend names the two ends: beside them a name would lie on the curves.
    for x, y, model, fill in zip(*ends, models, ("white", "black"), strict=True):
        axes.plot(x, y, "o", mec="black", mfc=fill, ms=6, zorder=5, label=_plain(f"always {model}"))
    axes.set_xlabel("mean cost, USD per 1,000 prompts" if in_usd else "share of prompts sent to the strong model")
    axes.set_ylabel("mean quality")
    axes.legend(fontsize=8, frameon=False, loc="center left", bbox_to_anchor=(1.01, 0.5))
    return _png(figure)


def reliability_chart(risk: FloatArray, scores: FloatArray, models: Sequence[str]) -> bytes:
    """Draw observed loss against predicted risk for each model, in ten bins of equal mass with Wilson intervals."""
    figure, all_axes = _figure(7.6, 3.9, columns=len(models))
    for axes, model, predicted, score in zip(all_axes, models, risk.T, scores.T, strict=True):
        bins = reliability_curve(predicted, 1.0 - score)
        x, y = np.array([b.predicted for b in bins]), np.array([b.observed for b in bins])
        errors = np.array([[b.observed - b.low, b.high - b.observed] for b in bins]).T
        axes.plot([0, 1], [0, 1], "--", color=_GREY, lw=1)
        axes.errorbar(x, y, yerr=errors, fmt="o-", color=_BLUE, ms=4, lw=1.2, capsize=2)
        top = min(1.0, 1.1 * max(float(x.max()), max(b.high for b in bins), 0.05))
        axes.set(xlim=(0, top), ylim=(0, top), xlabel="calibrated risk", aspect="equal")
        axes.set_title(_plain(model), fontsize=9)
    all_axes[0].set_ylabel("share that failed (mean loss)")
    return _png(figure)


def threshold_chart(curve: ThresholdCurve, marker: ThresholdMarker | None) -> bytes:
    """Draw quality lost and share sent to the weak model against the threshold, and the marker of a policy if any."""
    figure, axes = _figure(7.6, 4.2)
    axes.fill_between(curve.threshold, curve.low, curve.high, color=_RED, alpha=0.15, lw=0, step="post")
    axes.step(curve.threshold, curve.loss, where="post", color=_RED, lw=1.8, label="quality lost (left)")
    axes.axhline(0, color=_GREY, lw=0.8)
    axes.set(xlabel="threshold on the gain: above it the strong model answers")
    axes.set_ylabel("quality lost against always strong", color=_RED)
    other = axes.twinx()
    other.step(curve.threshold, curve.weak_share, where="post", color=_BLUE, lw=1.4, ls="--")
    other.set_ylabel("share sent to the weak model", color=_BLUE)
    other.set_ylim(0, 1)
    other.spines["top"].set_visible(False)
    if marker is not None:
        _mark_policy(axes, curve, marker)
    return _png(figure)


def _mark_policy(axes: Any, curve: ThresholdCurve, marker: ThresholdMarker) -> None:
    """Draw the policy's threshold, its certified region in green, and the target and bound on quality lost."""
    first, last = min(curve.threshold[0], marker.threshold), max(curve.threshold[-1], marker.threshold)
    axes.axvline(marker.threshold, color=_GREEN, lw=1.6)
    label = f"policy: {marker.threshold:g}, " + ("certified" if marker.certificate else "not certified")
    if marker.certified_region is not None:
        low, high = np.clip(marker.certified_region, first, last)
        axes.axvspan(low, high, color=_GREEN, alpha=0.12, lw=0)
    if (target := marker.loss_target) is not None:
        axes.axhline(target.limit, color=_GREEN, lw=1.2, ls=":")
        axes.plot(marker.threshold, target.bound_on_estimate, "v", color=_GREEN, ms=7, zorder=5)
        label += f"\ntarget: loss at most {target.limit:g} (dotted)\nupper bound: {target.bound_on_estimate:.4f} (mark)"
    # The label goes to the side that has room.
    left = marker.threshold < (first + last) / 2
    axes.annotate(
        label, (marker.threshold, 1.0), xycoords=("data", "axes fraction"), xytext=(6 if left else -6, -4),
        textcoords="offset points", ha="left" if left else "right", va="top", color=_GREEN, fontsize=8,
    )  # fmt: skip


def slices_chart(slices: Mapping[str, Slice]) -> bytes:
    """Draw the lift of each slice over random choice with its interval, the worst at the bottom; at most 40 slices."""
    ordered = sorted(slices.items(), key=lambda item: item[1].lift.value)
    shown = ordered if len(ordered) <= 40 else [*ordered[:20], *ordered[-20:]]
    figure, axes = _figure(7.6, 1.0 + 0.22 * len(shown))
    values = np.array([one.lift.value for _, one in shown])
    errors = np.array([[one.lift.value - one.lift.low, one.lift.high - one.lift.value] for _, one in shown]).T
    colours = [_RED if one.lift.high < 0 else _BLUE if one.lift.low > 0 else _GREY for _, one in shown]
    places = np.arange(len(shown))
    axes.errorbar(values, places, xerr=np.maximum(errors, 0), fmt="none", ecolor=colours, lw=1.4)
    axes.scatter(values, places, c=colours, s=16, zorder=3)
    axes.axvline(0, color="black", lw=0.8)
    axes.set_yticks(places, [_plain(f"{label or '(none)'} ({one.n:,})") for label, one in shown], fontsize=7)
    axes.set_xlabel("quality above random choice at equal strong share, 95 % interval")
    return _png(figure)


def learning_chart(points: Sequence[LearningPoint]) -> bytes:
    """Draw APGR against labelled prompts on a logarithmic axis, or the lift if there is no gap to recover."""
    figure, axes = _figure(6.4, 3.8)
    gap = all(point.apgr is not None for point in points)
    intervals = [point.apgr if gap and point.apgr is not None else point.lift for point in points]
    sizes = [point.n_labels for point in points]
    values = np.array([one.value for one in intervals])
    errors = np.array([[one.value - one.low, one.high - one.value] for one in intervals]).T
    axes.errorbar(sizes, values, yerr=np.maximum(errors, 0), fmt="o-", color=_BLUE, capsize=3)
    axes.axhline(0.5 if gap else 0.0, color=_GREY, ls="--", lw=1, label="random")
    axes.set_xscale("log")
    axes.set_xticks(sizes, [f"{size:,}" for size in sizes], fontsize=8)
    axes.minorticks_off()
    axes.set(
        xlabel="labelled prompts fitted on", ylabel="APGR on held-out prompts" if gap else "lift on held-out prompts"
    )
    axes.legend(fontsize=8, frameon=False)
    return _png(figure)


def bars_chart(values: Mapping[str, float], *, highlight: str, label: str) -> bytes:
    """Draw a horizontal bar for each value, the first one on top, and write the value beside it."""
    figure, axes = _figure(8.2, 0.9 + 0.38 * len(values))
    places = np.arange(len(values))[::-1]
    colours = [_BLUE if name == highlight else _GREY for name in values]
    bars = axes.barh(places, list(values.values()), color=colours, height=0.65)
    axes.bar_label(bars, labels=[f"{value:,.4g}" for value in values.values()], padding=4, fontsize=8)
    axes.set_yticks(places, [_plain(name) for name in values], fontsize=8)
    axes.set_xlabel(label)
    axes.margins(x=0.12)
    axes.set_axisbelow(True)
    return _png(figure)


def _figure(width: float, height: float, *, columns: int = 1) -> tuple[Any, Any]:
    # Matplotlib writes its list of fonts into our cache, and not into a place of its own.
    if (cache := default_cache_dir()) is not None:
        os.environ.setdefault("MPLCONFIGDIR", str(cache / "matplotlib"))
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, columns)
    for one in np.atleast_1d(axes):
        one.spines[["top", "right"]].set_visible(False)
        one.grid(alpha=0.25, lw=0.6)
    return figure, axes


def _png(figure: Any) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=_DPI, metadata={"Software": None})
    return buffer.getvalue()


def _plain(text: str) -> str:
    # Matplotlib takes a dollar sign for the start of a formula, and names of models and groups may hold one.
    return text.replace("$", r"\$")
