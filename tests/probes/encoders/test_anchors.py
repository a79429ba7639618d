"""Nothing serves under an encoder's identity that its spec does not pin: config, cache, bundle, tokenizer, runtime."""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from probes.encoders.bundle import BUNDLE_FILE, MOST_BYTES, TENSORS_FILE, Bundle, build_bundle, read_bundle
from probes.encoders.exported import RUNTIME_VARIABLE, ExportedEncoder, load_exported_encoder, pinned_here
from probes.encoders.files import find_encoder
from probes.encoders.load import load_encoder
from probes.encoders.native_runtime import targets_here
from probes.encoders.quantise import export_weights, quantise
from probes.encoders.spec import MINILM_L6, MINILM_L6_FLOAT32, MINILM_L6_ONNXRUNTIME, EncoderSpec
from probes.encoders.weights import EncoderWeights
from probes.errors import EncoderDigestError, EncoderError, EncoderMismatchError
from tests.probes.encoders.small_bert import CONFIG, HIDDEN, random_weights, small_weights

OLD = dataclasses.replace(MINILM_L6, config_sha256=None, tensors_sha256=None)


def turned(bundle: Bundle) -> Bundle:
    """Return a whole bundle of a garbled encoder: the words of its vocabulary stand in another order."""
    tensors = dict(bundle.weights.tensors)
    tensors["words"] = np.ascontiguousarray(tensors["words"][::-1])
    return dataclasses.replace(bundle, weights=dataclasses.replace(bundle.weights, tensors=tensors))


def other_tokens(bundle: Bundle) -> Bundle:
    data = json.loads(bundle.tokenizer)
    data["model"]["vocab"] |= {"the": 2001, "of": 2002}
    return dataclasses.replace(bundle, tokenizer=json.dumps(data).encode())


class TestFiles:
    @pytest.mark.parametrize("spec", [MINILM_L6, MINILM_L6_FLOAT32], ids=["int8", "float32"])
    @pytest.mark.parametrize("change", [{"num_attention_heads": 6}, {"layer_norm_eps": 0.1}, {"hidden_act": "relu"}])
    def test_a_changed_config_is_not_served(
        self, copied_encoder: Path, tmp_path: Path, spec: EncoderSpec, change: dict[str, object]
    ) -> None:
        config = copied_encoder / "config.json"
        config.write_text(json.dumps(json.loads(config.read_text("utf-8")) | change), "utf-8")
        with pytest.raises(EncoderDigestError, match=r"config\.json must have SHA-256"):
            load_encoder(spec, copied_encoder)

    def test_a_spec_that_says_nothing_of_config_is_refused_unless_the_encoder_is_known(self, bundle: Bundle) -> None:
        assert OLD.identity != MINILM_L6.identity
        assert OLD.pinned() == MINILM_L6
        unknown = dataclasses.replace(OLD, weights_sha256="1" * 64)
        for precision in ("int8", "float32"):
            with pytest.raises(EncoderDigestError, match="must have config_sha256"):
                load_encoder(dataclasses.replace(unknown, precision=precision))

    def test_a_probe_of_an_older_version_gets_the_same_features(self, bundle: Bundle, tmp_path: Path) -> None:
        old = load_exported_encoder(OLD, cache=tmp_path)
        assert old.spec.identity == OLD.identity or not targets_here()
        np.testing.assert_array_equal(old.encode("hello"), ExportedEncoder(bundle).encode("hello"))

    def test_a_spec_is_pinned_by_the_files_that_are_there(self, copied_encoder: Path) -> None:
        deeper = dataclasses.replace(OLD, pooling=("mean@1",), truncation="head")
        found = pinned_here(deeper, copied_encoder)
        assert (found.config_sha256, len(str(found.tensors_sha256))) == (MINILM_L6.config_sha256, 64)
        assert found.tensors_sha256 != MINILM_L6.tensors_sha256
        assert pinned_here(found) == found

    def test_scales_have_the_last_bit_that_was_published(self, bundle: Bundle) -> None:
        assert bundle.weights.digest == MINILM_L6.tensors_sha256
        assert build_bundle(OLD, find_encoder(OLD)).weights.digest == MINILM_L6.tensors_sha256


class TestPlanted:
    @pytest.mark.parametrize("spoil", [turned, other_tokens])
    def test_a_planted_cache_is_exported_again(
        self, bundle: Bundle, tmp_path: Path, spoil: Callable[[Bundle], Bundle], caplog: pytest.LogCaptureFixture
    ) -> None:
        kept = tmp_path / MINILM_L6.identity[:32]
        spoil(bundle).save(kept)
        with caplog.at_level(logging.WARNING):
            served = load_exported_encoder(MINILM_L6, cache=tmp_path)
        assert "exporting the encoder again" in caplog.text
        np.testing.assert_array_equal(served.encode("hello"), ExportedEncoder(bundle).encode("hello"))
        assert read_bundle(kept).of(MINILM_L6, "cache").weights.digest == MINILM_L6.tensors_sha256

    @pytest.mark.parametrize("spoil", [turned, other_tokens])
    def test_a_planted_bundle_is_refused(
        self, bundle: Bundle, tmp_path: Path, spoil: Callable[[Bundle], Bundle]
    ) -> None:
        spoil(bundle).save(tmp_path / "b")
        with pytest.raises(EncoderDigestError, match="that the spec of"):
            load_exported_encoder(MINILM_L6, tmp_path / "b")

    @pytest.mark.parametrize(
        "damage",
        [
            {BUNDLE_FILE: b"{" * 100_000},
            {BUNDLE_FILE: b'{"schema": 1e400}'},
            {BUNDLE_FILE: b'{"schema": ' + b"9" * 5000 + b"}"},
            {BUNDLE_FILE: b'{"schema": 1}', "model.onnx": b"of an older version"},
            {BUNDLE_FILE: b"[]"},
            {TENSORS_FILE: b""},
        ],
    )
    def test_a_cache_that_is_no_bundle_is_exported_again(
        self, bundle: Bundle, tmp_path: Path, damage: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # That an export gives these very bytes is tested elsewhere; each takes a second.
        monkeypatch.setattr("probes.encoders.exported.build_bundle", lambda *_: bundle)
        kept = tmp_path / MINILM_L6.identity[:32]
        bundle.save(kept)
        for name, data in damage.items():
            (kept / name).write_bytes(data)
        load_exported_encoder(MINILM_L6, cache=tmp_path)
        assert read_bundle(kept).spec == MINILM_L6

    def test_a_file_larger_than_any_of_its_kind_is_refused_unread(self, bundle: Bundle, tmp_path: Path) -> None:
        bundle.save(tmp_path / "b")
        with (tmp_path / "b" / "check.safetensors").open("r+b") as file:
            file.truncate(MOST_BYTES["check.safetensors"] + 1)
        with pytest.raises(EncoderError, match=r"check\.safetensors cannot be read: it must have at most 16,777,216"):
            read_bundle(tmp_path / "b")

    def test_a_tokenizer_with_more_words_than_the_weights_have_rows_is_refused(self, bundle: Bundle) -> None:
        data = json.loads(bundle.tokenizer)
        data["model"]["vocab"]["beyond"] = bundle.weights.vocabulary
        with pytest.raises(EncoderError, match="token ids must be below 30522"):
            ExportedEncoder(dataclasses.replace(bundle, tokenizer=json.dumps(data).encode()))

    def test_more_tokens_than_there_are_positions_are_refused(self, bundle: Bundle) -> None:
        with pytest.raises(EncoderError, match="max_tokens must be 512 at most"):
            dataclasses.replace(bundle, spec=dataclasses.replace(MINILM_L6, max_tokens=513))

    def test_nor_does_torch_take_more_tokens_than_there_are_positions(self, bundle: Bundle) -> None:
        with pytest.raises(EncoderError, match="max_tokens must be 512 at most"):
            load_encoder(dataclasses.replace(MINILM_L6_FLOAT32, max_tokens=513))


class TestRuntimes:
    @pytest.mark.skipif(not targets_here(), reason="no compiled library that this processor can run")
    def test_the_runtime_that_runs_is_part_of_the_identity(
        self, bundle: Bundle, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        from router.tuning.outcomes.feature_cache import FeatureCache

        monkeypatch.setenv(RUNTIME_VARIABLE, "onnxruntime")
        served = load_exported_encoder(MINILM_L6, cache=tmp_path)
        assert served.spec == MINILM_L6_ONNXRUNTIME == pinned_here(MINILM_L6)
        assert served.spec.differs_in_rounding_only(MINILM_L6)
        monkeypatch.setenv("ELLE_CACHE_DIR", str(tmp_path))
        with pytest.raises(EncoderMismatchError, match="this machine computes int8-onnxruntime"):
            FeatureCache().features(MINILM_L6, ["hello"])
        assert FeatureCache().features(MINILM_L6_ONNXRUNTIME, ["hello"]).shape == (1, 768)
        monkeypatch.delenv(RUNTIME_VARIABLE)
        # What was fitted on ONNX Runtime is served by it where our own library could run, too.
        assert load_exported_encoder(MINILM_L6_ONNXRUNTIME, cache=tmp_path).runtime == "onnxruntime"


def changed(name: str, change: Callable[[np.ndarray], np.ndarray]) -> Callable[[EncoderWeights], EncoderWeights]:
    return lambda weights: dataclasses.replace(
        weights, tensors={**weights.tensors, name: change(weights.tensors[name])}
    )


WIDE, QUERY = "layer.0.intermediate.dense", "layer.1.attention.self.query"


class TestTable:
    @pytest.mark.parametrize(
        ("spoil", "message"),
        [
            (changed("words", lambda a: a[:, :32]), "positions must be float32 of shape"),
            (changed("words", lambda a: a.astype(np.float32)), "words must be float16 of shape"),
            (changed("words", lambda a: a[0]), "words must be a matrix"),
            (changed("words", lambda a: a[:0]), "the vocabulary must be a whole number from 1"),
            (changed("words", lambda a: np.full_like(a, np.inf)), "words must be finite"),
            (changed(f"{WIDE}.w", lambda a: a[:, :-1]), f"{WIDE}.b must be float32 of shape \\(95,\\)"),
            (changed(f"{QUERY}.w", lambda a: a[:-32]), f"{QUERY}.w must be int8 of shape \\(64, 192\\)"),
            (changed(f"{QUERY}.w", lambda a: a.T), f"{QUERY}.w must be int8 of shape \\(64, 192\\), got int8 of shape"),
            (
                changed(f"{QUERY}.w", lambda a: np.full_like(a, 127)),
                "must add up to 128 at most, as 16 bits need, got 1016",
            ),
            (changed(f"{QUERY}.scale", lambda a: -a), "scale must be greater than 0"),
            (changed(f"{QUERY}.b", lambda a: a[:1]), "b must be float32 of shape"),
            (changed("state.1.gamma", lambda a: a * np.nan), r"state\.1\.gamma must be finite"),
            (lambda w: dataclasses.replace(w, heads=3), "heads must divide the hidden size 64, got 3"),
            (lambda w: dataclasses.replace(w, heads=0), "heads must be a whole number from 1 to 64, got 0"),
            (lambda w: dataclasses.replace(w, heads=True), "heads must be a whole number"),
            (lambda w: dataclasses.replace(w, epsilon=0.5), "epsilon must be 1e-20 to 0.01, got 0.5"),
            (lambda w: dataclasses.replace(w, epsilon=float("nan")), "epsilon must be"),
            (lambda w: dataclasses.replace(w, epsilon=0.0), "epsilon must be"),
            (lambda w: dataclasses.replace(w, halves=5), "missing or too many: layer"),
            (lambda w: dataclasses.replace(w, halves=2), "missing or too many: layer"),
            (lambda w: dataclasses.replace(w, halves=10**9), "half layers must be a whole number from 0 to 200"),
            (lambda w: dataclasses.replace(w, tensors={**w.tensors, "more": np.zeros(3)}), "too many: more"),
        ],
    )
    def test_weights_that_are_not_an_encoders_are_refused_by_name(
        self, spoil: Callable[[EncoderWeights], EncoderWeights], message: str
    ) -> None:
        with pytest.raises(EncoderError, match=message):
            spoil(small_weights())

    def test_the_digest_is_of_every_number(self) -> None:
        found = {small_weights().digest, dataclasses.replace(small_weights(), heads=1).digest}
        found |= {dataclasses.replace(small_weights(), epsilon=1e-5).digest}
        for name, array in small_weights().tensors.items():
            other = array.copy()
            other.reshape(-1)[-1] = 1
            found.add(dataclasses.replace(small_weights(), tensors={**small_weights().tensors, name: other}).digest)
        assert len(found) == 3 + len(small_weights().tensors)

    @pytest.mark.parametrize(
        "change", [{"num_attention_heads": "2"}, {"num_hidden_layers": 0}, {"layer_norm_eps": "x"}]
    )
    def test_numbers_of_config_that_are_none_are_named(self, change: dict[str, object]) -> None:
        with pytest.raises(EncoderError, match=rf"{next(iter(change))} of config\.json must be"):
            export_weights(random_weights(), CONFIG | change, 4, int8=True)

    def test_quantised_weights_never_break_the_bound_of_eight(self) -> None:
        rng = np.random.default_rng(1)
        tensors = dict(small_weights().tensors)
        for _ in range(20):
            weight = rng.standard_t(1, size=(192, HIDDEN)).astype(np.float32)
            tensors[f"{QUERY}.w"] = np.ascontiguousarray(quantise(weight)[0].T)
            dataclasses.replace(small_weights(), tensors=tensors)
