"""Write the HTML of a report: a page that fetches nothing, holds its own pictures and quotes no prompt."""

from __future__ import annotations

import base64
import string
from collections.abc import Iterator, Mapping
from html import escape
from pathlib import Path

from probes.probe import DifficultyProbe, utc_now
from router.money import usd_text
from router.tuning.judging.policy_evaluation import PolicyEvaluation
from router.tuning.judging.probe_evaluation import EXPECT, PROBE, Evaluation
from router.tuning.judging.ranking import Ranking
from router.tuning.reporting.html_policy import policy_html
from router.tuning.reporting.mistakes import Mistakes
from router.tuning.reporting.threshold_marker import ThresholdMarker

#: The HTML around the body of every page that we write. It lets a browser fetch nothing.
TEMPLATE = Path(__file__).with_name("report.html")

_COLUMNS = (
    *("ranking by", "APGR", "95 %", "probe ahead by", "95 %", "CPT20", "CPT50", "CPT80"),
    *("area", "AIQ", "saved", "AUROC", "ECE"),
)

_NOTES = {"script": " A script is not a language."}


def render_page(
    found: Evaluation,
    probe: DifficultyProbe,
    pictures: Mapping[str, bytes],
    mistakes: Mistakes,
    marker: ThresholdMarker | None,
    policy: PolicyEvaluation | None = None,
) -> str:
    """Return the whole page of a report as HTML that fetches nothing. Names from the data are escaped."""
    body = "\n".join(_body(found, probe, pictures, mistakes, marker, policy))
    title = escape(f"{probe.card.title}: {found.strong} over {found.weak}")
    return string.Template(TEMPLATE.read_text("utf-8")).substitute(title=title, body=body)


def _body(
    found: Evaluation,
    probe: DifficultyProbe,
    pictures: Mapping[str, bytes],
    mistakes: Mistakes,
    marker: ThresholdMarker | None,
    policy: PolicyEvaluation | None,
) -> Iterator[str]:
    yield f"<h1>{escape(found.strong)} over {escape(found.weak)}</h1>"
    if policy is not None:
        yield from policy_html(policy)
        yield "<h2>What the probe does</h2>"
    name = f"Probe {escape(probe.card.title)}, <code>{probe.identity[:16]}</code>."
    yield f'<p class="about">{name} {escape(_how(found))}</p>'
    if found.warning:
        yield f'<p class="warning">{escape(found.warning)}</p>'
    yield from _cards(found)
    yield "<h2>Which figure to expect</h2>"
    yield from _splits(found)
    yield "<h2>Against everything else</h2>"
    yield from _rankings(found)
    yield picture(pictures, "cost-quality", "Every point of a curve is a threshold. Higher and further left is better.")
    yield "<h2>Are the probabilities right?</h2>"
    yield picture(
        pictures, "reliability", "On the diagonal a risk of 20 % fails in 20 % of cases. Bars: 95 % (Wilson)."
    )
    yield "<h2>What a threshold costs</h2>"
    yield from _certificate(marker, policy)
    band = "Band: pointwise 95 % on these prompts, without abstention; no certificate, which is what elle tune gives."
    region = marker is not None and marker.certified_region is not None
    yield picture(pictures, "threshold", f"{band} Green: certified thresholds." if region else band)
    yield "<h2>Where it helps and where it harms</h2>"
    yield '<p class="note">Red: significantly worse than random choice at equal strong share.</p>'
    for by in found.slices:
        if f"slices-{by}" in pictures:
            yield picture(pictures, f"slices-{by}", f"By {by}; prompts in brackets.{_NOTES.get(by, '')}")
    yield "<h2>Would more labels help?</h2>"
    yield picture(
        pictures, "learning", "The recipe refitted on part of these data, scored on a fifth left out by text."
    )
    yield "<h2>Where it is wrong</h2>"
    yield from _mistakes(mistakes, found.n)
    yield "<h2>From what</h2><ul>"
    for source in found.data:
        yield f"<li>{escape(source.name)}, {source.n_rows:,} rows, SHA-256 <code>{source.sha256}</code></li>"
    for name, why in found.skipped.items():
        yield f"<li>not run: {escape(name)}: {escape(why)}</li>"
    yield f"</ul><p class='note'>Made {utc_now()} by elle report. Intervals are 95 % bootstrap over prompt texts.</p>"


def _how(found: Evaluation) -> str:
    if found.folds is None:
        return f"Judged {found.n:,} prompts as it is; trained baselines were cross-fitted on these data."
    by = "whole groups left out" if found.split == "group" else "split by prompt text"
    return f"Its recipe refitted in {found.folds} folds of {found.n:,} prompts, {by}."


def _cards(found: Evaluation) -> Iterator[str]:
    own = found.probe
    cards = [
        (f"{own.apgr.value:.3f}", f"APGR, {own.apgr.low:.3f} to {own.apgr.high:.3f}; random 0.5"),
        (_percent(own, "cpt50"), "strong calls for half the gap"),
        (_percent(own, "cpt80"), "strong calls for 80 % of the gap"),
        (_number(own, "auroc"), "AUROC of the weak model's failures"),
        (_number(own, "ece"), "calibration error (ECE)"),
    ]
    if own.value("cost_saved") is not None:
        cards.insert(3, (_percent(own, "cost_saved"), "cost saved at the strong model's quality"))
    yield '<div class="cards">'
    for value, label in cards:
        yield f'<div class="card"><b>{value}</b><span>{escape(label)}</span></div>'
    yield "</div>"


def _splits(found: Evaluation) -> Iterator[str]:
    if not found.splits:
        yield "<p>The probe was scored as it is: the figures hold for traffic like these data. With <code>--cv</code> "
        yield "its recipe is also measured on whole groups left out.</p>"
        return
    yield "<table><tr><th>split</th><th>APGR</th><th>95 %</th><th>what it means</th></tr>"
    for name, apgr in found.splits.items():
        yield f"<tr><td>{name}</td><td>{apgr.value:.3f}</td><td>{apgr.low:.3f} to {apgr.high:.3f}</td>"
        yield f"<td>{escape(EXPECT[name])}</td></tr>"
    yield "</table>"
    if "group" not in found.splits:
        yield '<p class="note">No held-out-group figure: the column <code>group</code> must hold two groups.</p>'


def _certificate(marker: ThresholdMarker | None, policy: PolicyEvaluation | None) -> Iterator[str]:
    if marker is None and policy is not None:
        yield '<p class="note">The rule of the policy has no threshold between these two models, so none is marker.</p>'
        return
    if marker is None:
        yield '<p class="note">No policy given (<code>--policy</code>), so no certified thresholds are marker.</p>'
        return
    first, *others = marker.describe()
    yield f"<p>{escape(first)}</p>"
    if others:
        yield "<ul>" + "".join(f"<li>{escape(line)}</li>" for line in others) + "</ul>"
        yield '<p class="note">Estimates and bounds are of the calibration prompts of <code>elle tune</code>, with '
        yield "abstention; the chart is of the prompts of this report.</p>"


def _rankings(found: Evaluation) -> Iterator[str]:
    yield '<div class="wide"><table><tr>' + "".join(f"<th>{name}</th>" for name in _COLUMNS) + "</tr>"
    for name, one in {PROBE: found.probe, **found.baselines}.items():
        ahead = one.ahead.get("apgr")
        cells = [
            f"{one.apgr.value:.3f}",
            f"{one.apgr.low:.3f} to {one.apgr.high:.3f}",
            "" if ahead is None else f"{ahead.value:+.3f}",
            "" if ahead is None else f"{ahead.low:+.3f} to {ahead.high:+.3f}",
            *(_percent(one, figure) for figure in ("cpt20", "cpt50", "cpt80")),
            *(_number(one, figure) for figure in ("area", "aiq")),
            _percent(one, "cost_saved"),
            *(_number(one, figure) for figure in ("auroc", "ece")),
        ]
        row = "".join(f"<td>{cell}</td>" for cell in cells)
        own = ' class="own"' if name == PROBE else ""
        yield f"<tr{own}><td>{escape(name.replace('_', ' '))}</td>{row}</tr>"
    for model, score, cost in (
        (found.weak, found.weak_score, found.weak_cost_usd),
        (found.strong, found.strong_score, found.strong_cost_usd),
    ):
        about = f"quality {score:.3f}" + ("" if cost is None else f", {usd_text(1000 * cost)} per 1,000")
        yield f"<tr><td>always {escape(model)}</td><td colspan='12' style='text-align:left'>{about}</td></tr>"
    yield "</table></div>"
    yield '<p class="note">APGR: share of the quality gap recovered, averaged over strong shares. Ahead: paired, '
    yield "on the same resamples. Baselines' risks are calibrated on these very prompts.</p>"


def _mistakes(mistakes: Mistakes, n: int) -> Iterator[str]:
    yield f"<p>At a threshold of {mistakes.threshold:.3f} on the gain, of {n:,} prompts. Ids only, no texts.</p>"
    for title, count, listed in (
        ("Sent to the weak model although the strong one was better", mistakes.n_lost, mistakes.lost),
        ("Sent to the strong model although it was no better", mistakes.n_wasted, mistakes.wasted),
    ):
        yield f"<h3>{title}: {count:,}</h3>"
        yield "<table><tr><th>id</th><th>group</th><th>gain</th><th>weak score</th><th>strong score</th></tr>"
        for one in listed:
            numbers = f"<td>{one.gain:+.3f}</td><td>{one.weak_score:g}</td><td>{one.strong_score:g}</td>"
            yield f"<tr><td><code>{escape(one.prompt_id)}</code></td><td>{escape(one.group)}</td>{numbers}</tr>"
        yield "</table>"


def picture(pictures: Mapping[str, bytes], name: str, caption: str) -> str:
    """Return the HTML of one of these PNG pictures, which the page itself then holds, with its caption."""
    source = "data:image/png;base64," + base64.b64encode(pictures[name]).decode()
    image = f'<img alt="{escape(name.replace("-", " "))}" src="{source}">'
    return f"<figure>{image}<figcaption>{escape(caption)}</figcaption></figure>"


def _percent(ranking: Ranking, name: str) -> str:
    value = ranking.value(name)
    return "-" if value is None else f"{value:.1%}"


def _number(ranking: Ranking, name: str) -> str:
    value = ranking.value(name)
    return "-" if value is None else f"{value:.3f}"
