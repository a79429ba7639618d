"""The runtimes of the real encoder: torch as the reference, the exported graph, and what keeps them honest."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from probes.encoders.bundle import (
    BUNDLE_FILE,
    CHECK_FILE,
    CHECK_TEXTS,
    TENSORS_FILE,
    Bundle,
    build_bundle,
    read_bundle,
)
from probes.encoders.exported import ExportedEncoder, load_exported_encoder
from probes.encoders.files import find_encoder
from probes.encoders.load import load_encoder
from probes.encoders.quantise import export_weights, quantise
from probes.encoders.spec import MINILM_L6, MINILM_L6_FLOAT32, BatchEncoder, Encoder, FloatArray, encode_all
from probes.encoders.torch_runtime import (
    DEVICE_VARIABLE,
    TorchBatchEncoder,
    TorchEncoder,
    load_torch_encoder,
    torch_device,
)
from probes.errors import DataError, EncoderDigestError, EncoderError, EncoderNotFoundError

ALL_PARTS = ("mean@0", "max@0.5", "cls@2", "mean@2.5", "max@3", "mean@6", "cls@6")


@pytest.fixture(scope="module")
def source(_real_encoder: None) -> Path:
    return find_encoder(MINILM_L6)


@pytest.fixture(scope="module")
def reference(_real_encoder: None) -> Encoder:
    return load_encoder(MINILM_L6_FLOAT32)


@pytest.fixture(scope="module")
def bundle(source: Path) -> Bundle:
    return build_bundle(MINILM_L6, source)


@pytest.fixture(scope="module")
def int8(bundle: Bundle) -> ExportedEncoder:
    return ExportedEncoder(bundle)


def cosines(a: FloatArray, b: FloatArray) -> FloatArray:
    found: FloatArray = (a * b).sum(1) / (np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1))
    return found


class TestFeatures:
    def test_torch_gives_transformers_own_hidden_states_pooled_by_hand(self, reference: Encoder, source: Path) -> None:
        import torch
        from transformers import AutoModel, BertTokenizer

        text = "What is the derivative of x^2 sin(x)?"
        tokens = BertTokenizer(str(source / "vocab.txt"))(text, return_tensors="pt")
        model = AutoModel.from_pretrained(source, local_files_only=True).eval()
        layer = model.encoder.layer[2]
        with torch.no_grad():
            state = model(**tokens, output_hidden_states=True).hidden_states[2]
            mixed = layer.attention.self(state)[0]
            between = layer.attention.output.LayerNorm(layer.attention.output.dense(mixed) + state)[0]
        by_hand = torch.cat([between.mean(0), between.amax(0)])
        np.testing.assert_allclose(reference.encode(text), by_hand.numpy(), atol=2e-5)

    def test_the_graph_in_float32_is_the_same_function_as_torch(self, source: Path) -> None:
        spec = dataclasses.replace(MINILM_L6_FLOAT32, pooling=ALL_PARTS)
        graph, torch_encoder = ExportedEncoder(build_bundle(spec, source)), load_encoder(spec)
        for text in CHECK_TEXTS:
            np.testing.assert_allclose(graph.encode(text), torch_encoder.encode(text), atol=1e-4)

    def test_int8_stays_close_to_it(self, int8: ExportedEncoder, reference: Encoder) -> None:
        found, wanted = (np.stack([one.encode(text) for text in CHECK_TEXTS]) for one in (int8, reference))
        assert cosines(found, wanted).min() > 0.998

    @pytest.mark.parametrize("runtime", ["reference", "int8"])
    def test_a_text_has_the_same_features_alone_and_among_others(
        self, runtime: str, request: pytest.FixtureRequest
    ) -> None:
        encoder: Encoder = request.getfixturevalue(runtime)
        texts = ["short", "a somewhat longer text " * 20, "x", "日本語の質問", "short", ""]
        together = encode_all(encoder, texts, workers=3)
        for text, features in zip(texts, together, strict=True):
            assert (encoder.encode(text) == features).all()

    def test_of_a_long_text_both_ends_are_read_and_not_the_middle(self, int8: ExportedEncoder) -> None:
        middle = "word " * 400
        long = int8.encode(f"first {middle} last")
        assert (long == int8.encode(f"first {middle}{middle} last")).all()
        assert (long != int8.encode(f"first {middle} other")).any()
        assert (long != int8.encode(f"other {middle} last")).any()

    def test_head_only_reads_the_beginning(self, source: Path) -> None:
        encoder = ExportedEncoder(build_bundle(dataclasses.replace(MINILM_L6, truncation="head"), source))
        long = "word " * 300
        assert (encoder.encode(long) == encoder.encode(long + "something else entirely")).all()

    def test_half_a_megabyte_costs_no_more_tokens_than_the_limit(self, int8: ExportedEncoder) -> None:
        assert len(int8.tokenize("word " * 100_000)) == MINILM_L6.max_tokens
        assert len(int8.tokenize("x" * 500_000)) <= MINILM_L6.max_tokens

    def test_layers_above_the_highest_one_read_change_nothing(self, reference: Encoder) -> None:
        deeper = load_encoder(dataclasses.replace(MINILM_L6_FLOAT32, pooling=("mean@2.5", "mean@6")))
        np.testing.assert_array_equal(deeper.encode("hello")[:384], reference.encode("hello")[:384])

    def test_what_comes_after_a_state_within_a_layer_is_not_run(self) -> None:
        encoder = TorchEncoder(MINILM_L6_FLOAT32, find_encoder(MINILM_L6_FLOAT32))
        ran = []
        for number, layer in enumerate(encoder._model.encoder.layer):
            layer.intermediate.register_forward_hook(lambda *_, number=number: ran.append(number))
        encoder.encode("hello")
        assert ran == [0, 1]

    @pytest.mark.parametrize("runtime", ["reference", "int8"])
    def test_a_lone_surrogate_is_a_named_error(self, runtime: str, request: pytest.FixtureRequest) -> None:
        with pytest.raises(DataError, match="surrogate"):
            request.getfixturevalue(runtime).encode("broken \ud800")


class TestBatches:
    """torch on the CPU, made to take batches: the arithmetic of a GPU's path without the GPU."""

    def test_padding_moves_no_feature_by_more_than_rounding(self, source: Path) -> None:
        encoder = TorchBatchEncoder(dataclasses.replace(MINILM_L6_FLOAT32, pooling=ALL_PARTS), source)
        texts = ["x", *CHECK_TEXTS, "word " * 400, ""]
        prompts = [encoder.tokenize(text) for text in texts]
        assert isinstance(encoder, BatchEncoder)
        together = encoder.encode_batch(prompts)
        assert together.shape == (len(texts), encoder.n_features)
        assert (len(prompts[0]), max(map(len, prompts))) == (3, 256)
        # Features are up to 10, where neighbouring float32 numbers are 1e-6 apart.
        np.testing.assert_allclose(together, [encoder.encode(text) for text in texts], rtol=0, atol=1e-5)

    def test_only_an_encoder_on_a_gpu_wants_batches(
        self, int8: Encoder, source: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        assert not isinstance(int8, BatchEncoder)
        assert not isinstance(TorchEncoder(MINILM_L6_FLOAT32, source), BatchEncoder)
        made = []
        monkeypatch.setattr(TorchEncoder, "__init__", lambda self, spec, directory, device="cpu": made.append(device))
        for device, kind in (("cpu", TorchEncoder), ("cuda:1", TorchBatchEncoder)):
            monkeypatch.setattr("probes.encoders.torch_runtime.torch_device", lambda device=device: device)
            assert type(load_torch_encoder(MINILM_L6_FLOAT32, source)) is kind
        assert made == ["cpu", "cuda:1"]

    @pytest.mark.parametrize(
        ("asked", "gpus", "expected"),
        [
            ("", 0, "cpu"),
            ("", 1, "cuda"),
            ("cpu", 1, "cpu"),
            ("cuda", 1, "cuda"),
            ("cuda:1", 2, "cuda:1"),
            ("cuda", 0, "torch sees 0 GPUs"),
            ("cuda:2", 2, "torch sees 2 GPUs"),
            ("gpu", 1, "must be cpu, cuda or cuda:N, got 'gpu'"),
        ],
    )
    def test_the_device_is_what_one_says_or_the_gpu_where_there_is_one(
        self, asked: str, gpus: int, expected: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv(DEVICE_VARIABLE, asked)
        monkeypatch.setattr("torch.cuda.device_count", lambda: gpus)
        monkeypatch.setattr("torch.cuda.is_available", lambda: gpus > 0)
        if " " in expected:
            with pytest.raises(EncoderError, match=expected):
                torch_device()
        else:
            assert torch_device() == expected

    def test_float32_means_float32_whatever_else_the_process_does(self, source: Path) -> None:
        import torch

        torch.set_float32_matmul_precision("medium")
        torch.backends.cudnn.allow_tf32 = True
        TorchEncoder(MINILM_L6_FLOAT32, source)
        assert torch.get_float32_matmul_precision() == "highest"
        assert not torch.backends.cuda.matmul.allow_tf32
        assert not torch.backends.cudnn.allow_tf32


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


class TestGraph:
    def test_another_architecture_is_refused_by_what_differs(self) -> None:
        with pytest.raises(EncoderError, match="model_type='xlm-roberta'"):
            export_weights({}, {"model_type": "xlm-roberta", "hidden_act": "gelu"}, 1, int8=True)

    def test_a_layer_that_is_not_there_and_a_missing_tensor_are_named(self) -> None:
        config = {"model_type": "bert", "hidden_act": "gelu", "num_hidden_layers": 2, "num_attention_heads": 2}
        with pytest.raises(EncoderError, match=r"up to 2, got 2\.5"):
            export_weights({}, config, 5, int8=True)
        with pytest.raises(EncoderError, match=r"word_embeddings\.weight"):
            export_weights({}, config, 2, int8=True)

    def test_quantising_is_off_by_at_most_half_a_step_per_channel(self) -> None:
        weight = np.random.default_rng(0).normal(size=(5, 40)).astype(np.float32) * np.logspace(-3, 3, 5)[:, None]
        weight[2] = 0
        quantised, scale = quantise(weight.astype(np.float32))
        assert (np.abs(quantised * scale[:, None] - weight) <= scale[:, None] * 0.5001).all()
        assert np.abs(quantised).max() <= 127

    def test_eight_products_fit_in_sixteen_bits_whatever_they_are_multiplied_by(self) -> None:
        rng = np.random.default_rng(0)
        weight = np.concatenate([rng.normal(size=(50, 384)), np.ones((1, 384)), -rng.random((9, 384))])
        quantised, _ = quantise(weight.astype(np.float32))
        eights = quantised.reshape(60, 24, 4, 2, 2).astype(np.int64)
        assert 30_000 < 255 * np.maximum(eights, 0).sum(axis=(2, 4)).max() < 2**15
        assert 30_000 < -255 * np.minimum(eights, 0).sum(axis=(2, 4)).min() <= 2**15


def test_layers_asked_for_beyond_the_last_are_refused_by_torch_too(reference: Encoder) -> None:
    with pytest.raises(EncoderError, match="layers up to 6"):
        load_encoder(dataclasses.replace(MINILM_L6_FLOAT32, pooling=("mean@7",)))


def test_states_within_a_layer_are_refused_where_layers_are_not_known_to_have_them(
    source: Path, tmp_path: Path
) -> None:
    shutil.copytree(source, tmp_path / "other")
    config = tmp_path / "other" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text("utf-8")) | {"model_type": "distilbert"}), "utf-8")
    digest = hashlib.sha256(config.read_bytes()).hexdigest()
    with pytest.raises(EncoderError, match=r"whole layers for 'distilbert', got \['mean@2.5', 'max@2.5'\]"):
        load_encoder(dataclasses.replace(MINILM_L6_FLOAT32, config_sha256=digest), tmp_path / "other")
