"""Write the README.md that lies beside a saved probe, for people."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from probes.probe import DifficultyProbe


def model_card(probe: DifficultyProbe) -> str:
    """Return a Markdown page that says what the probe is, where it comes from and what was measured."""
    return (
        "\n".join([*_head(probe), *_models(probe), *_kinds(probe), *_provenance(probe), *_figures(probe), *_use(probe)])
        + "\n"
    )


def _head(probe: DifficultyProbe) -> Iterator[str]:
    yield f"# {probe.card.title}"
    yield ""
    if probe.card.summary:
        yield probe.card.summary
        yield ""
    yield f"A linear map from {probe.n_features} features to the expected loss of each model below."
    yield f"Identity `{probe.identity}`, made {probe.card.created}."
    yield ""


def _models(probe: DifficultyProbe) -> Iterator[str]:
    kinds = [calibrator.kind for calibrator in probe.calibrators] or ["none"] * len(probe.models)
    yield "| model | labelled rows | ridge penalty | calibration |"
    yield "|---|---|---|---|"
    for model, alpha, kind in zip(probe.models, probe.linear.alpha, kinds, strict=True):
        yield f"| {_cell(model)} | {probe.card.n_samples.get(model, 'not recorded')} | {alpha:.4g} | {kind} |"
    yield ""


def _kinds(probe: DifficultyProbe) -> Iterator[str]:
    if probe.kinds is None:
        return
    yield "## Known kinds"
    yield ""
    yield "A decision says which of these kinds a prompt is nearest to, or that it is of none of them."
    yield ""
    for name, assumed in zip(probe.kinds.names, probe.kinds.assumed, strict=True):
        yield f"- {_cell(name)}{' (assumed losses)' if assumed else ''}"
    yield ""


def _provenance(probe: DifficultyProbe) -> Iterator[str]:
    yield "## Provenance"
    yield ""
    yield (f"- encoder: `{probe.encoder_identity}`" if probe.encoder else "- encoder: none; features from elsewhere")
    for name, value in _flat(probe.encoder or {}):
        yield f"  - {name}: {value}"
    for source in probe.card.data:
        yield f"- data: {source.name}, {source.n_rows} rows, SHA-256 `{source.sha256}`"
    for name, version in probe.card.versions.items():
        yield f"- made with {name} {version}"
    yield ""


def _figures(probe: DifficultyProbe) -> Iterator[str]:
    figures = list(_flat(probe.card.metrics))
    if not figures:
        return
    yield "## Measured"
    yield ""
    yield "| figure | value |"
    yield "|---|---|"
    for name, value in figures:
        yield f"| {_cell(name)} | {_cell(value)} |"
    yield ""


def _use(probe: DifficultyProbe) -> Iterator[str]:
    yield "## Use and limits"
    yield ""
    yield "```python"
    yield "from probes import artifact"
    yield ""
    yield 'probe = artifact.load("this directory")'
    yield "probe.predict(features)   # loss, risk, leverage, unfamiliar"
    yield "```"
    yield ""
    limit = probe.leverage_limit
    yield "The figures hold for prompts like those it was fitted on."
    if limit is None:
        yield "No leverage limit was set: it does not say when a prompt is unlike them."
    else:
        yield f"A prompt whose leverage exceeds {limit:.4g} is unlike them and is reported as unfamiliar."


def _flat(value: object, name: str = "") -> Iterator[tuple[str, str]]:
    """Yield the leaves of nested JSON as (dotted name, value)."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _flat(inner, f"{name}.{key}" if name else str(key))
    else:
        yield name, f"{value:.4g}" if isinstance(value, float) else str(value)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
