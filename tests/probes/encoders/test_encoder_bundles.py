"""Tests of the exported encoder on disk: the bundle, its cache, and files that were spoiled."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from probes.encoders.bundle import (
    BUNDLE_FILE,
    CHECK_FILE,
    TENSORS_FILE,
    Bundle,
    build_bundle,
    read_bundle,
)
from probes.encoders.exported import ExportedEncoder, load_exported_encoder
from probes.encoders.spec import MINILM_L6
from probes.errors import EncoderDigestError, EncoderError, EncoderNotFoundError


class TestBundle:
    def test_the_same_files_give_the_same_bytes(self, bundle: Bundle, source: Path) -> None:
        assert build_bundle(MINILM_L6, source).contents == bundle.contents

    def test_it_survives_the_disk(self, bundle: Bundle, tmp_path: Path, int8: ExportedEncoder) -> None:
        bundle.save(tmp_path / "b")
        loaded = load_exported_encoder(MINILM_L6, tmp_path / "b")
        assert (loaded.encode("hello") == int8.encode("hello")).all()

    @pytest.mark.parametrize("name", [TENSORS_FILE, CHECK_FILE, "tokenizer.json"])
    def test_a_spoiled_file_is_named(self, bundle: Bundle, tmp_path: Path, name: str) -> None:
        bundle.save(tmp_path / "b")
        (tmp_path / "b" / name).write_bytes(bundle.contents[name][:-1])
        with pytest.raises(EncoderDigestError, match=name):
            read_bundle(tmp_path / "b")

    def test_a_missing_file_and_an_unreadable_manifest_are_named(self, bundle: Bundle, tmp_path: Path) -> None:
        bundle.save(tmp_path / "b")
        (tmp_path / "b" / BUNDLE_FILE).write_text("{")
        with pytest.raises(EncoderError, match=BUNDLE_FILE):
            read_bundle(tmp_path / "b")
        (tmp_path / "b" / TENSORS_FILE).unlink()
        with pytest.raises(EncoderNotFoundError, match=TENSORS_FILE):
            read_bundle(tmp_path / "b")

    def test_another_schema_is_refused(self, bundle: Bundle, tmp_path: Path) -> None:
        bundle.save(tmp_path / "b")
        about = json.loads(bundle.contents[BUNDLE_FILE]) | {"schema": 9}
        (tmp_path / "b" / BUNDLE_FILE).write_text(json.dumps(about))
        with pytest.raises(EncoderError, match="schema 2, got 9"):
            read_bundle(tmp_path / "b")

    def test_a_bundle_of_another_encoder_is_refused(self, bundle: Bundle, tmp_path: Path) -> None:
        bundle.save(tmp_path / "b")
        with pytest.raises(EncoderDigestError, match="export-encoder"):
            load_exported_encoder(dataclasses.replace(MINILM_L6, max_tokens=64), tmp_path / "b")

    def test_a_machine_that_computes_other_features_is_refused(self, bundle: Bundle) -> None:
        mixed = dataclasses.replace(bundle, check_features=-bundle.check_features)
        with pytest.raises(EncoderError, match="cosine at least"):
            ExportedEncoder(mixed)


def torn_model(kept: Path) -> None:
    raw = (kept / TENSORS_FILE).read_bytes()
    (kept / TENSORS_FILE).write_bytes(raw[: len(raw) // 2])


def empty_files(kept: Path) -> None:
    for path in kept.iterdir():
        path.write_bytes(b"")


def torn_about(kept: Path) -> None:
    (kept / BUNDLE_FILE).write_text((kept / BUNDLE_FILE).read_text()[:100])


def nested_about(kept: Path) -> None:
    (kept / BUNDLE_FILE).write_text("[" * 100_000)


def newer_schema(kept: Path) -> None:
    about = json.loads((kept / BUNDLE_FILE).read_text())
    (kept / BUNDLE_FILE).write_text(json.dumps(about | {"schema": 99}))
    (kept / "of-a-newer-version.bin").write_bytes(b"x")


def newer_spec(kept: Path) -> None:
    about = json.loads((kept / BUNDLE_FILE).read_text())
    about["encoder"]["of_a_newer_version"] = 1
    (kept / BUNDLE_FILE).write_text(json.dumps(about))


def no_check(kept: Path) -> None:
    (kept / CHECK_FILE).write_bytes(b"x")
    about = json.loads((kept / BUNDLE_FILE).read_text())
    about["files"][CHECK_FILE] = hashlib.sha256(b"x").hexdigest()
    (kept / BUNDLE_FILE).write_text(json.dumps(about))


def a_directory_for_a_file(kept: Path) -> None:
    (kept / TENSORS_FILE).unlink()
    (kept / TENSORS_FILE).mkdir()


SPOILED = (
    torn_model,
    empty_files,
    torn_about,
    nested_about,
    newer_schema,
    newer_spec,
    no_check,
    a_directory_for_a_file,
)


class TestCache:
    def test_it_is_exported_once_and_kept(
        self, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        first = load_exported_encoder(MINILM_L6, source, cache=tmp_path)
        kept = tmp_path / MINILM_L6.identity[:32]
        assert read_bundle(kept).spec == MINILM_L6
        with monkeypatch.context() as patch:
            patch.setattr("probes.encoders.exported.build_bundle", None)
            second = load_exported_encoder(MINILM_L6, source, cache=tmp_path)
        assert (first.encode("hello") == second.encode("hello")).all()
        (kept / TENSORS_FILE).write_bytes(b"half")
        with caplog.at_level(logging.WARNING):
            load_exported_encoder(MINILM_L6, source, cache=tmp_path)
        assert "exporting the encoder again" in caplog.text
        assert read_bundle(kept)

    @pytest.mark.parametrize("spoil", SPOILED, ids=lambda spoil: spoil.__name__)
    def test_a_kept_one_that_cannot_be_used_is_replaced_and_keeps_nobody_from_serving(
        self, bundle: Bundle, source: Path, tmp_path: Path, spoil: Callable[[Path], object]
    ) -> None:
        kept = tmp_path / MINILM_L6.pinned().identity[:32]
        bundle.save(kept)
        spoil(kept)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("probes.encoders.exported.build_bundle", lambda *_: bundle)
            assert load_exported_encoder(MINILM_L6, source, cache=tmp_path).encode("hello").shape == (768,)
            assert read_bundle(kept).contents == bundle.contents
            patch.setattr("probes.encoders.exported.build_bundle", None)
            load_exported_encoder(MINILM_L6, source, cache=tmp_path)

    def test_a_named_folder_without_the_encoder_is_refused_although_the_cache_has_it(
        self, bundle: Bundle, tmp_path: Path
    ) -> None:
        bundle.save(tmp_path / "cache" / MINILM_L6.identity[:32])
        (tmp_path / "empty").mkdir()
        with pytest.raises(EncoderNotFoundError, match="empty"):
            load_exported_encoder(MINILM_L6, tmp_path / "empty", cache=tmp_path / "cache")

    def test_a_cache_that_cannot_be_written_costs_only_time(
        self, source: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        (tmp_path / "file").write_text("")
        with caplog.at_level(logging.WARNING):
            encoder = load_exported_encoder(MINILM_L6, source, cache=tmp_path / "file")
        assert encoder.encode("hello").shape == (768,)
        assert "not kept" in caplog.text

    def test_loading_it_needs_neither_torch_nor_transformers_nor_onnx(self, bundle: Bundle, tmp_path: Path) -> None:
        bundle.save(tmp_path / "b")
        code = (
            "import sys\n"
            "for name in ('torch', 'transformers', 'onnx'): sys.modules[name] = None\n"
            "from pathlib import Path\n"
            "from probes.encoders.spec import MINILM_L6; from probes.encoders.load import load_encoder\n"
            f"print(load_encoder(MINILM_L6, Path({str(tmp_path / 'b')!r})).encode('hello').shape)"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        assert done.stdout.strip() == "(768,)", done.stderr
