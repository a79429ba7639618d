"""Tests of our own int8 forward pass: what it computes, bits alike on every instruction set, and who serves instead."""

from __future__ import annotations

import dataclasses
import logging
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from probes.encoders import exported as exported_encoder
from probes.encoders.bundle import CHECK_TEXTS, Bundle, build_bundle
from probes.encoders.exported import RUNTIME_VARIABLE, ExportedEncoder
from probes.encoders.files import find_encoder
from probes.encoders.native_runtime import TARGETS, NativeRuntime, library_path, targets_here
from probes.encoders.onnx_runtime import OnnxRuntime
from probes.encoders.quantise import export_weights
from probes.encoders.spec import MINILM_L6, MINILM_L6_ONNXRUNTIME, FloatArray
from probes.encoders.weights import EncoderWeights
from probes.errors import DataError, EncoderError
from tests.probes.encoders.small_bert import (
    CONFIG,
    PARTS,
    POSITIONS,
    VOCABULARY,
    ByHand,
    needs_it,
    prompts,
    random_weights,
)


def cosine(a: npt.NDArray[Any], b: npt.NDArray[Any]) -> float:
    return float((a * b).sum() / np.linalg.norm(a) / np.linalg.norm(b))


@needs_it
class TestArithmetic:
    @pytest.mark.parametrize("n_tokens", [1, 2, 3, 5, 12, 13, 31, 64, POSITIONS])
    def test_it_is_the_network_computed_by_hand(self, small_model: EncoderWeights, n_tokens: int) -> None:
        ids = np.random.default_rng(n_tokens).integers(0, VOCABULARY, n_tokens).tolist()
        wanted = ByHand(random_weights())(ids)
        for target in targets_here():
            found = NativeRuntime(small_model, PARTS, target)(ids)
            # One value in eight bits that went the other way would be a hundred times that.
            np.testing.assert_allclose(found, wanted, atol=2e-5)

    def test_no_sum_of_it_overflows(self) -> None:
        weights = random_weights()
        for name, weight in weights.items():
            if ".dense." in name or (".self." in name and name.endswith("weight")):
                # One sign and one size: the largest sums that sixteen bits have to hold.
                weights[name] = np.full_like(weight, np.abs(weight).max())
        model = export_weights(weights, CONFIG, 4, int8=True)
        ids = list(range(40))
        wanted = ByHand(weights)(ids)
        for runtime in (*(NativeRuntime(model, PARTS, one) for one in targets_here()), OnnxRuntime(model, PARTS)):
            np.testing.assert_allclose(runtime(ids), wanted, atol=2e-5)

    def test_every_instruction_set_gives_the_same_bits(self, bundle: Bundle, emulation: Path) -> None:
        runtimes = [NativeRuntime(bundle.weights, MINILM_L6.parts, one) for one in targets_here()]
        for target in TARGETS:
            runtimes.append(NativeRuntime(bundle.weights, MINILM_L6.parts, target, emulation))
        rng = np.random.default_rng(0)
        for n_tokens in (2, 3, 13, 60, 201, 256):
            ids = [101, *rng.integers(1000, 20_000, n_tokens - 2).tolist(), 102]
            first, *others = [runtime(ids) for runtime in runtimes]
            for other in others:
                np.testing.assert_array_equal(first, other)

    def test_onnx_runtime_computes_the_same_up_to_its_own_rounding(
        self, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        ours = ExportedEncoder(bundle)
        monkeypatch.setenv(RUNTIME_VARIABLE, "onnxruntime")
        theirs = ExportedEncoder(bundle)
        assert (ours.runtime, theirs.runtime) == (f"native {targets_here()[0].name}", "onnxruntime")
        # Not the same bits, and so not the same identity.
        assert (ours.spec, theirs.spec) == (MINILM_L6, MINILM_L6_ONNXRUNTIME)
        assert ours.spec.identity != theirs.spec.identity
        assert any((ours.encode(text) != theirs.encode(text)).any() for text in CHECK_TEXTS)
        for text in CHECK_TEXTS:
            assert cosine(ours.encode(text), theirs.encode(text)) > 0.9999
        assert ours.agreement(bundle.check_features) > 0.9993

    def test_many_threads_with_one_model_do_not_disturb_each_other(self, small_model: EncoderWeights) -> None:
        run = NativeRuntime(small_model, PARTS, targets_here()[0])
        many = prompts(300, seed=1)
        alone = [run(ids) for ids in many]
        with ThreadPoolExecutor(8) as pool:
            for expected, found in zip(alone, pool.map(run, many), strict=True):
                np.testing.assert_array_equal(expected, found)


@needs_it
class TestBadInput:
    @pytest.mark.parametrize("ids", [[], [VOCABULARY], [-1], [0] * (POSITIONS + 1)])
    def test_ids_without_rows_are_refused_before_they_are_read(
        self, small_model: EncoderWeights, ids: list[int]
    ) -> None:
        with pytest.raises(DataError, match=f"1 to {POSITIONS} of 0 to {VOCABULARY - 1}"):
            NativeRuntime(small_model, PARTS, targets_here()[0])(ids)

    def test_a_layer_that_is_not_there_is_named(self, small_model: EncoderWeights) -> None:
        with pytest.raises(EncoderError, match="it has 4"):
            NativeRuntime(small_model, (("mean", 5),), targets_here()[0])

    def test_widths_it_is_not_written_for_are_refused(self) -> None:
        odd = export_weights(random_weights(), {**CONFIG, "num_attention_heads": 4}, 4, int8=True)
        with pytest.raises(EncoderError, match="multiples of 32, got 64, 96 and 4 heads"):
            NativeRuntime(odd, PARTS, targets_here()[0])

    def test_weights_in_float32_are_refused(self) -> None:
        with pytest.raises(EncoderError, match="int8, got float32"):
            NativeRuntime(export_weights(random_weights(), CONFIG, 4, int8=False), PARTS, targets_here()[0])


class TestChoice:
    def test_a_wrong_name_is_refused_with_the_right_ones(self, bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv(RUNTIME_VARIABLE, "fastest")
        with pytest.raises(EncoderError, match="native, onnxruntime or unset, got 'fastest'"):
            ExportedEncoder(bundle)

    def test_without_the_library_onnx_runtime_serves(self, bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("probes.encoders.native_runtime.library_path", lambda: None)
        assert ExportedEncoder(bundle).runtime == "onnxruntime"
        monkeypatch.setenv(RUNTIME_VARIABLE, "native")
        with pytest.raises(EncoderError, match="C compiler"):
            ExportedEncoder(bundle)

    @needs_it
    def test_a_library_that_computes_something_else_does_not_serve(
        self, bundle: Bundle, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        class Wrong(NativeRuntime):
            def __call__(self, ids: Any) -> FloatArray:
                return -super().__call__(ids)

        monkeypatch.setattr(exported_encoder, "NativeRuntime", Wrong)
        with caplog.at_level(logging.WARNING):
            assert ExportedEncoder(bundle).runtime == "onnxruntime"
        assert "cosine at least" in caplog.text

    def test_float32_is_not_its_business(self, bundle: Bundle) -> None:
        spec = dataclasses.replace(MINILM_L6, precision="float32")
        assert ExportedEncoder(build_bundle(spec, find_encoder(spec))).runtime == "onnxruntime"

    def test_where_the_package_was_built_with_a_compiler_the_library_is_there(self) -> None:
        if shutil.which("cc") is None:
            pytest.skip("no C compiler")
        assert library_path() is not None, "install the package again: its C library was not compiled"
