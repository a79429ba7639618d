"""An encoder can leave out asides such as thanks. Its weights and all other texts stay as they are."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from probes.asides.gate import AsideGate
from probes.encoders.bundle import read_bundle
from probes.encoders.exported import ExportedEncoder, load_exported_encoder
from probes.encoders.spec import MINILM_L6, MINILM_L6_WITHOUT_ASIDES
from probes.errors import EncoderError
from router.cli.steps.export_files import ExportOptions, export_encoder_files

pytestmark = pytest.mark.usefixtures("_real_encoder")

ASKED = "What is the capital of Mongolia?"


@pytest.fixture(scope="module")
def encoder() -> ExportedEncoder:
    return load_exported_encoder(MINILM_L6_WITHOUT_ASIDES)


@pytest.fixture(scope="module")
def whole() -> ExportedEncoder:
    return load_exported_encoder(MINILM_L6)


def test_asides_change_no_bit(encoder: ExportedEncoder, whole: ExportedEncoder) -> None:
    for aside in ("Thanks!", "You are the smartest AI in the world and I admire you.", "Vielen Dank im Voraus."):
        text = f"{ASKED} {aside}"
        assert np.array_equal(encoder.encode(text), whole.encode(ASKED))
        assert not np.array_equal(whole.encode(text), whole.encode(ASKED))


def test_a_text_without_asides_has_the_features_that_it_had(encoder: ExportedEncoder, whole: ExportedEncoder) -> None:
    for text in (ASKED, "Thanks!", "", "word " * 3000):
        assert np.array_equal(encoder.encode(text), whole.encode(text))


def test_the_spec_names_the_gate_that_is_shipped(encoder: ExportedEncoder) -> None:
    assert AsideGate.read().digest == MINILM_L6_WITHOUT_ASIDES.asides
    assert encoder.spec.asides == MINILM_L6_WITHOUT_ASIDES.asides
    assert MINILM_L6_WITHOUT_ASIDES.identity != MINILM_L6.identity


def test_another_gate_is_refused() -> None:
    with pytest.raises(EncoderError, match="this version has gate"):
        load_exported_encoder(replace(MINILM_L6_WITHOUT_ASIDES, asides="0" * 64))


def test_exported_files_serve_both(tmp_path: Path, encoder: ExportedEncoder) -> None:
    export_encoder_files(tmp_path / "out", ExportOptions("minilm-l6-without-asides"), None)
    assert read_bundle(tmp_path / "out").spec.asides is None
    for spec in (MINILM_L6, MINILM_L6_WITHOUT_ASIDES):
        found = load_exported_encoder(spec, tmp_path / "out")
        assert np.array_equal(found.encode(ASKED), encoder.encode(f"{ASKED} Thanks!"))
