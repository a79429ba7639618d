"""Fixtures of the encoder tests: the real encoder with its runtimes, and a small BERT."""

from __future__ import annotations

from pathlib import Path

import pytest

from probes.encoders.bundle import (
    Bundle,
    build_bundle,
)
from probes.encoders.exported import ExportedEncoder
from probes.encoders.files import find_encoder
from probes.encoders.load import load_encoder
from probes.encoders.spec import MINILM_L6, MINILM_L6_FLOAT32, Encoder
from probes.encoders.weights import EncoderWeights
from tests.probes.encoders.small_bert import compiled, small_weights


@pytest.fixture(scope="package")
def source(_real_encoder: None) -> Path:
    return find_encoder(MINILM_L6)


@pytest.fixture(scope="package")
def reference(_real_encoder: None) -> Encoder:
    return load_encoder(MINILM_L6_FLOAT32)


@pytest.fixture(scope="package")
def bundle(source: Path) -> Bundle:
    return build_bundle(MINILM_L6, source)


@pytest.fixture(scope="package")
def int8(bundle: Bundle) -> ExportedEncoder:
    return ExportedEncoder(bundle)


@pytest.fixture(scope="package")
def small_model() -> EncoderWeights:
    return small_weights()


@pytest.fixture(scope="package")
def emulation(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Compile the library with AVX-512 VNNI written out in C, so that its path runs on any AVX2 machine."""
    return compiled(tmp_path_factory, "-DEMULATE_VNNI")
