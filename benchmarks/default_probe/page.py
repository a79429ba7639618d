"""Write the section of docs/results.md on the embedded default, from what `benchmarks.default_probe.measure` found."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

_FITS = {"with_anchors": "with anchors", "without_anchors": "without anchors", "prompt_length": "prompt length"}


def default_section(found: Mapping[str, Any]) -> Iterator[str]:
    """Yield the section, line by line."""
    yield "## The embedded default"
    yield ""
    yield f"The default was fitted on {found['n_rows']:,} prompts of {found['n_kinds']} kinds and on"
    yield f"{found['n_anchors']:,} prompts of our own, the *anchors*, whose losses are assumptions and which no figure"
    yield "counts ([decision 0011](decisions/0011-default-on-many-kinds.md)). Brackets are 95 % intervals: a bootstrap"
    yield "over files or kinds, Wilson's for shares of prompts."
    yield ""
    yield "| rank correlation of judged and true loss of economy | " + " | ".join(_FITS.values()) + " |"
    yield "|---" * (len(_FITS) + 1) + "|"
    for unit, label in (("sources", "files, each left out whole"), ("kinds", "kinds of files left out whole")):
        cells = (_correlation(found[name][unit]) for name in _FITS)
        yield f"| {found['with_anchors'][unit]['n']} {label} | " + " | ".join(cells) + " |"
    yield ""
    yield from _everyday(found["everyday"])
    yield ""
    yield from _calibration(found["calibration"])


def _everyday(found: Mapping[str, Any]) -> Iterator[str]:
    n, languages = found["n"], len(found["by_language"])
    yield f"{n:,} everyday prompts of our own in {languages} languages, none fitted on, through the served policy:"
    yield ""
    yield "| share of | |"
    yield "|---|---|"
    yield f"| trivial prompts to economy | {_share(found['trivial_to_cheapest'])} |"
    yield f"| hard prompts to a stronger tier | {_share(found['hard_to_stronger'])} |"
    yield f"| abstained | {_share(found['abstained'])} |"
    yield ""
    yield "| appended to every prompt | decisions that flip, of 108 | the worst sentence |"
    yield "|---|---|---|"
    for name, one in found["flips"].items():
        yield f"| {name} | {one['flips_of_108']:.1f} | {one['worst_of_108']:.1f} |"


def _calibration(found: Mapping[str, Any]) -> Iterator[str]:
    yield "Expected calibration error of prompts whose kind was left out, by file; the worst of each tier in bold:"
    yield ""
    sources = list(next(iter(found.values()))["by_source"])
    yield "| file | " + " | ".join(found) + " |"
    yield "|---" * (len(found) + 1) + "|"
    for source in sources:
        yield f"| {source} | " + " | ".join(_error(one, source) for one in found.values()) + " |"


def _error(tier: Mapping[str, Any], source: str) -> str:
    if source not in tier["by_source"]:
        return ""
    shown = f"{tier['by_source'][source]:.3f}"
    return f"**{shown}**" if source == tier["worst"] else shown


def _correlation(one: Mapping[str, float]) -> str:
    return f"{one['spearman']:.3f} [{one['low']:.3f}, {one['high']:.3f}]"


def _share(one: Mapping[str, float]) -> str:
    return f"{one['share']:.3f} [{one['low']:.3f}, {one['high']:.3f}] of {one['n']:,}"
