"""`elle export-encoder`: the encoder as a bundle that serves without torch, and how close it stays to the reference."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from probes.encoders.bundle import CHECK_TEXTS, build_bundle
from probes.encoders.exported import ExportedEncoder, pinned_here
from probes.encoders.files import find_encoder
from probes.encoders.load import load_encoder
from probes.encoders.spec import parse_spec
from probes.errors import DataError, EncoderError
from router.tuning.judging.parity import RoutingParity, routing_parity
from router.tuning.outcomes.datasets import read_outcomes
from router.tuning.outcomes.feature_cache import FeatureCache, Progress


@dataclass(frozen=True)
class ExportReport:
    """What was written, and how it compares.

    Attributes:
        out: the bundle. identity: of the encoder, as probes name it. digest: of the weights that serve.
        size_bytes: of the bundle.
        runtime: what ran it here.
        cosine_min: least cosine to the reference's features, over the built-in texts.
        reference: what `cosine_min` was measured against: `torch`, or the same graph in float32 without torch.
        routing: parity of routing on outcomes; None if none were given.
    """

    out: str
    encoder: str
    precision: str
    identity: str
    digest: str
    size_bytes: int
    runtime: str
    cosine_min: float
    reference: str
    routing: RoutingParity | None

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON."""
        rest = {field.name: getattr(self, field.name) for field in dataclasses.fields(self) if field.name != "routing"}
        return {**rest, "routing": self.routing.to_dict() if self.routing else None}

    def print(self, console: Console) -> None:
        """For people."""
        console.print(
            f"Wrote {self.out}: {self.encoder} in {self.precision}, {self.size_bytes / 1e6:.1f} MB, "
            f"identity {self.identity[:12]}, digest of its weights {self.digest[:12]}."
        )
        console.print(
            f"Features by {self.runtime}: cosine to {self.reference} at least {self.cosine_min:.4f} on the built-in "
            f"texts."
        )
        if (found := self.routing) is not None:
            console.print(
                f"Routing on {found.n_prompts:,} prompts left out: APGR {found.apgr.value:.4f}, in float32 "
                f"{found.reference_apgr.value:.4f} [{found.reference_apgr.low:.3f}, {found.reference_apgr.high:.3f}]; "
                f"ECE {found.ece:.3f} and {found.reference_ece:.3f}; {found.agreement:.1%} decided alike. "
                f"{'Passed' if found.passed else 'FAILED'}."
            )


def export_command(
    out: Path,
    *,
    encoder: str,
    encoder_dir: Path | None,
    parity: Sequence[Path],
    weak: str | None,
    strong: str | None,
    on_progress: Progress | Callable[[int, int], None] | None,
) -> ExportReport:
    """What `elle export-encoder` does. With outcomes in `parity` both precisions are refitted and compared.

    Raises EncoderError, DataError or ArtifactError; writes the whole bundle or nothing.
    """
    spec = pinned_here(parse_spec(encoder), encoder_dir)
    if spec.precision == "float32":
        raise EncoderError("--encoder must be of precision int8: float32 runs in torch from the original files.")
    if parity and (weak is None or strong is None):
        raise DataError("--parity needs --weak and --strong: the two models of the data that are routed between.")
    bundle = build_bundle(spec, find_encoder(spec, encoder_dir))
    exported = ExportedEncoder(bundle)
    bundle.save(out)
    reference_spec = dataclasses.replace(spec, precision="float32", tensors_sha256=None)
    try:
        reference = load_encoder(reference_spec, encoder_dir)
        name, cosine = "torch", exported.agreement(np.stack([reference.encode(text) for text in CHECK_TEXTS]))
    except EncoderError:
        if parity:
            raise
        name, cosine = "the same graph in float32", exported.agreement(bundle.check_features)
    routing = None
    if parity:
        outcomes = read_outcomes(*parity)
        served, full = (
            FeatureCache().features(one, outcomes.texts, encoder_dir=encoder_dir, on_progress=on_progress)
            for one in (spec, reference_spec)
        )
        routing = routing_parity(outcomes, served, full, weak=str(weak), strong=str(strong))
    return ExportReport(
        out=str(out),
        encoder=spec.model_id,
        precision=spec.precision,
        identity=spec.identity,
        digest=bundle.weights.digest,
        size_bytes=sum(len(data) for data in bundle.contents.values()),
        runtime=exported.runtime,
        cosine_min=cosine,
        reference=name,
        routing=routing,
    )
