"""The steps of `elle export-encoder`: build the bundle, compare its features, and compare its routing if asked."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from probes.encoders.bundle import CHECK_TEXTS, build_bundle
from probes.encoders.exported import ExportedEncoder, pinned_here
from probes.encoders.files import find_encoder
from probes.encoders.load import load_encoder
from probes.encoders.spec import parse_spec
from probes.errors import DataError, EncoderError
from router.tuning.judging.encoder_parity import routing_parity
from router.tuning.outcomes.datasets import read_outcomes
from router.tuning.outcomes.feature_cache import FeatureCache, Progress
from router.tuning.reporting.export_summary import ExportSummary


@dataclass(frozen=True)
class ExportOptions:
    """Holds the options that the user gives to `elle export-encoder`.

    Attributes:
        encoder: built-in name, or path of a JSON encoder spec. encoder_dir: folder of its files; None looks for them.
        parity: files of outcomes to compare the routing on; with none, only features are compared.
        weak, strong: the two models of these outcomes.
    """

    encoder: str
    encoder_dir: Path | None = None
    parity: Sequence[Path] = ()
    weak: str | None = None
    strong: str | None = None


def export_encoder_files(out: Path, options: ExportOptions, on_progress: Progress | None) -> ExportSummary:
    """Write an encoder to the folder `out` as a bundle that serves without torch, and return how it compares.

    With outcomes in `options.parity` the recipe of `elle fit` is fitted on the features of both precisions. Raises
    EncoderError, DataError or ArtifactError. The whole bundle is written, or nothing.
    """
    # The files of an encoder that leaves out asides are those of the same one without.
    spec = dataclasses.replace(pinned_here(parse_spec(options.encoder), options.encoder_dir), asides=None)
    if spec.precision == "float32":
        raise EncoderError("--encoder must be of precision int8: float32 runs in torch from the original files.")
    if options.parity and (options.weak is None or options.strong is None):
        raise DataError("--parity needs --weak and --strong: the two models of the data that are routed between.")
    bundle = build_bundle(spec, find_encoder(spec, options.encoder_dir))
    exported = ExportedEncoder(bundle)
    bundle.save(out)
    reference_spec = dataclasses.replace(spec, precision="float32", tensors_sha256=None)
    try:
        reference = load_encoder(reference_spec, options.encoder_dir)
        name, cosine = "torch", exported.agreement(np.stack([reference.encode(text) for text in CHECK_TEXTS]))
    except EncoderError:
        # Without torch the features of the same graph in float32, kept in the bundle, are the reference.
        if options.parity:
            raise
        name, cosine = "the same graph in float32", exported.agreement(bundle.check_features)
    routing = None
    if options.parity:
        outcomes = read_outcomes(*options.parity)
        served, full = (
            FeatureCache().features(one, outcomes.texts, encoder_dir=options.encoder_dir, on_progress=on_progress)
            for one in (spec, reference_spec)
        )
        routing = routing_parity(outcomes, served, full, weak=str(options.weak), strong=str(options.strong))
    return ExportSummary(
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
