"""The runtimes of the real encoder: torch as the reference, the exported graph, and what keeps them honest."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from probes.encoders.bundle import (
    CHECK_TEXTS,
    build_bundle,
)
from probes.encoders.exported import ExportedEncoder
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
from probes.errors import DataError, EncoderError

ALL_PARTS = ("mean@0", "max@0.5", "cls@2", "mean@2.5", "max@3", "mean@6", "cls@6")

#: The same encoder, read within its third layer.
HALF_LESS = dataclasses.replace(MINILM_L6_FLOAT32, pooling=("mean@2.5", "max@2.5"))


def cosines(a: FloatArray, b: FloatArray) -> FloatArray:
    found: FloatArray = (a * b).sum(1) / (np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1))
    return found


class TestFeatures:
    def test_torch_gives_transformers_own_hidden_states_pooled_by_hand(self, source: Path) -> None:
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
        np.testing.assert_allclose(load_encoder(HALF_LESS).encode(text), by_hand.numpy(), atol=2e-5)

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
        deeper = load_encoder(dataclasses.replace(MINILM_L6_FLOAT32, pooling=("mean@3", "mean@6")))
        np.testing.assert_array_equal(deeper.encode("hello")[:384], reference.encode("hello")[:384])

    def test_what_comes_after_a_state_within_a_layer_is_not_run(self) -> None:
        encoder = TorchEncoder(HALF_LESS, find_encoder(HALF_LESS))
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
        load_encoder(dataclasses.replace(HALF_LESS, config_sha256=digest), tmp_path / "other")
