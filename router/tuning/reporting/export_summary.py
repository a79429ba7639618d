"""Report which bundle `elle export-encoder` wrote, and how close it is to the original encoder."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from rich.console import Console

from router.tuning.judging.encoder_parity import RoutingParity


@dataclass(frozen=True)
class ExportSummary:
    """Holds what `elle export-encoder` wrote, and how it compares with the original encoder.

    Attributes:
        out: folder of the bundle. encoder: name of the model. precision: of its weights.
        identity: digest of the encoder, by which probes name it. digest: of the weights in the bundle.
        size_bytes: of the bundle.
        runtime: the runtime that computed the features of this comparison.
        cosine_min: least cosine between the bundle's and the reference's features, over the built-in texts.
        reference: what these are compared with: `torch`, or the same graph in float32 if torch is not installed.
        routing: figures of routing on outcomes; None if no outcomes were given.
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
        """Return plain JSON values."""
        rest = {field.name: getattr(self, field.name) for field in dataclasses.fields(self) if field.name != "routing"}
        return {**rest, "routing": self.routing.to_dict() if self.routing else None}


def print_export(summary: ExportSummary, console: Console) -> None:
    """Print for people what was written and how it compares."""
    console.print(
        f"Wrote {summary.out}: {summary.encoder} in {summary.precision}, {summary.size_bytes / 1e6:.1f} MB, "
        f"identity {summary.identity[:12]}, digest of its weights {summary.digest[:12]}."
    )
    console.print(
        f"Features by {summary.runtime}: cosine to {summary.reference} at least {summary.cosine_min:.4f} on the "
        f"built-in texts."
    )
    if (found := summary.routing) is not None:
        console.print(
            f"Routing on {found.n_prompts:,} prompts left out: APGR {found.apgr.value:.4f}, in float32 "
            f"{found.reference_apgr.value:.4f} [{found.reference_apgr.low:.3f}, {found.reference_apgr.high:.3f}]; "
            f"ECE {found.ece:.3f} and {found.reference_ece:.3f}; {found.agreement:.1%} decided alike. "
            f"{'Passed' if found.passed else 'FAILED'}."
        )
