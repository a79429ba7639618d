"""Our own int8 forward pass: what it computes, the same bits by every instruction set, and who serves without it."""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import logging
import os
import shutil
import subprocess
import sys
import time
import tomllib
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
from probes.encoders.quantise import export_weights, quantise
from probes.encoders.spec import MINILM_L6, MINILM_L6_ONNXRUNTIME, FloatArray
from probes.encoders.weights import EncoderWeights
from probes.errors import DataError, EncoderError
from router.deciding.cores import usable_cores

ROOT = Path(__file__).parents[3]

PARTS = (("mean", 0), ("cls", 2), ("mean", 3), ("max", 4))

needs_it = pytest.mark.skipif(not targets_here(), reason="no compiled library that this processor can run")

HIDDEN, HEADS, INNER, LAYERS, VOCABULARY, POSITIONS = 64, 2, 96, 2, 50, 70


def random_weights() -> dict[str, npt.NDArray[np.float32]]:
    """Tensors of a small BERT, tokens of different sizes among them."""
    rng = np.random.default_rng(5)

    def normal(*shape: int, spread: float) -> npt.NDArray[np.float32]:
        return (rng.normal(size=shape) * spread).astype(np.float32)

    found = {
        "embeddings.word_embeddings.weight": normal(VOCABULARY, HIDDEN, spread=1.0),
        "embeddings.position_embeddings.weight": normal(POSITIONS, HIDDEN, spread=0.3),
        "embeddings.token_type_embeddings.weight": normal(2, HIDDEN, spread=0.3),
    }
    shapes = {
        "attention.self.query": (HIDDEN, HIDDEN),
        "attention.self.key": (HIDDEN, HIDDEN),
        "attention.self.value": (HIDDEN, HIDDEN),
        "attention.output.dense": (HIDDEN, HIDDEN),
        "intermediate.dense": (INNER, HIDDEN),
        "output.dense": (HIDDEN, INNER),
    }
    for layer in (f"encoder.layer.{number}" for number in range(LAYERS)):
        for name, shape in shapes.items():
            found[f"{layer}.{name}.weight"] = normal(*shape, spread=shape[1] ** -0.5)
            found[f"{layer}.{name}.bias"] = normal(shape[0], spread=0.1)
    norms = ["embeddings", *(f"encoder.layer.{n}.{part}output" for n in range(LAYERS) for part in ("attention.", ""))]
    for name in norms:
        found[f"{name}.LayerNorm.weight"] = 1 + normal(HIDDEN, spread=0.2)
        found[f"{name}.LayerNorm.bias"] = normal(HIDDEN, spread=0.2)
    return found


CONFIG = {
    "model_type": "bert",
    "hidden_act": "gelu",
    "hidden_size": HIDDEN,
    "num_attention_heads": HEADS,
    "num_hidden_layers": LAYERS,
}


class ByHand:
    """The same network in numpy, float64 but for its int8 products: what the graph is meant to compute."""

    def __init__(self, weights: dict[str, npt.NDArray[np.float32]]) -> None:
        self.weights = weights

    def __call__(self, ids: list[int]) -> npt.NDArray[np.float64]:
        w = self.weights
        words = w["embeddings.word_embeddings.weight"].astype(np.float16).astype(np.float64)[ids]
        positions = w["embeddings.position_embeddings.weight"] + w["embeddings.token_type_embeddings.weight"][0]
        states = [self.normalise(words + positions[: len(ids)], "embeddings")]
        for number in range(LAYERS):
            states.append(self.attention(states[-1], f"encoder.layer.{number}"))
            states.append(self.feed_forward(states[-1], f"encoder.layer.{number}"))
        pooled = {"mean": lambda x: x.mean(0), "max": lambda x: x.max(0), "cls": lambda x: x[0]}
        return np.concatenate([pooled[kind](states[halves]) for kind, halves in PARTS])

    def attention(self, state: npt.NDArray[np.float64], name: str) -> npt.NDArray[np.float64]:
        from scipy.special import softmax

        parts = [f"{name}.attention.self.{part}" for part in ("query", "key", "value")]
        q, k, v = (np.split(x, HEADS, axis=1) for x in np.split(self.product(state, *parts), 3, axis=1))
        heads = [softmax(a @ b.T / np.sqrt(HIDDEN / HEADS), axis=1) @ c for a, b, c in zip(q, k, v, strict=True)]
        mixed = self.product(np.concatenate(heads, axis=1), f"{name}.attention.output.dense")
        return self.normalise(mixed + state, f"{name}.attention.output")

    def feed_forward(self, middle: npt.NDArray[np.float64], name: str) -> npt.NDArray[np.float64]:
        from scipy.special import ndtr

        wide = self.product(middle, f"{name}.intermediate.dense")
        return self.normalise(self.product(wide * ndtr(wide), f"{name}.output.dense") + middle, f"{name}.output")

    def product(self, x: npt.NDArray[np.float64], *names: str) -> npt.NDArray[np.float64]:
        integers, scale = quantise(np.concatenate([self.weights[f"{name}.weight"] for name in names]))
        # In float32 like the rest of the world: the largest value of a token lies between two integers.
        size = np.maximum(np.abs(x).max(axis=1, keepdims=True), 0.25).astype(np.float32)
        scaled = x.astype(np.float32) / size
        low, high = np.minimum(scaled.min(), np.float32(0)), np.maximum(scaled.max(), np.float32(0))
        step = (high - low) / np.float32(255)
        zero = np.rint(-low / step)
        eight_bits = np.clip(np.rint(scaled / step) + zero, 0, 255) - zero
        exact = eight_bits.astype(np.float64) @ integers.T.astype(np.float64)
        return exact * float(step) * scale * size + np.concatenate([self.weights[f"{name}.bias"] for name in names])

    def normalise(self, x: npt.NDArray[np.float64], name: str) -> npt.NDArray[np.float64]:
        centred = x - x.mean(axis=1, keepdims=True)
        scaled = centred / np.sqrt((centred**2).mean(axis=1, keepdims=True) + 1e-12)
        return scaled * self.weights[f"{name}.LayerNorm.weight"] + self.weights[f"{name}.LayerNorm.bias"]


def small_weights() -> EncoderWeights:
    return export_weights(random_weights(), CONFIG, 4, int8=True)


@pytest.fixture(scope="module")
def small_model() -> EncoderWeights:
    return small_weights()


@pytest.fixture(scope="module")
def bundle(_real_encoder: None) -> Bundle:
    return build_bundle(MINILM_L6, find_encoder(MINILM_L6))


def compiled(tmp_path_factory: pytest.TempPathFactory, *defines: str) -> Path:
    if (compiler := shutil.which("cc")) is None:
        pytest.skip("no C compiler")
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["setuptools"]["ext-modules"][0]
    out = tmp_path_factory.mktemp("native") / "library.so"
    sources = [str(ROOT / source) for source in settings["sources"]]
    flags = [*settings["extra-compile-args"], *defines, "-shared", "-fPIC"]
    subprocess.run([compiler, *flags, "-o", str(out), *sources, "-lm"], check=True)
    return out


@pytest.fixture(scope="module")
def emulation(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library with AVX-512 VNNI written out in C, so that its path runs on any AVX2 machine."""
    return compiled(tmp_path_factory, "-DEMULATE_VNNI")


@pytest.fixture(scope="module")
def slow_help(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library with a helper that loses its core over every third item, longer than the rest of a pass takes."""
    lose = "static unsigned turn; if (turn++ % 3 == 0) usleep(2000);"
    return compiled(tmp_path_factory, "-DEMULATE_VNNI", f"-DLOSE_THE_CORE={lose}")


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


def prompts(n: int, seed: int) -> list[list[int]]:
    rng = np.random.default_rng(seed)
    return [rng.integers(0, VOCABULARY, n_tokens).tolist() for n_tokens in rng.integers(1, POSITIONS, n)]


def helped_within(seconds: float, run: NativeRuntime) -> bool:
    """Whether a core was idle at last, and did something."""
    ends = time.monotonic() + seconds
    while run.items_helped == 0 and time.monotonic() < ends:
        run([1, 2, 3])
    return run.items_helped > 0


def helpers() -> set[int]:
    """Threads of this process that only take what is left over."""
    threads = (int(entry.name) for entry in Path("/proc/self/task").iterdir())
    found = set()
    for thread in threads:
        with contextlib.suppress(ProcessLookupError):
            found |= {thread} if os.sched_getscheduler(thread) == os.SCHED_IDLE else set()
    return found


@needs_it
@pytest.mark.skipif(sys.platform != "linux", reason="no threads of the class SCHED_IDLE")
@pytest.mark.skipif(usable_cores() < 2, reason="no second core that could be idle")
class TestIdleCore:
    def test_it_changes_no_bit(self, bundle: Bundle, emulation: Path) -> None:
        rng = np.random.default_rng(3)
        for target in TARGETS:
            alone, helped = (NativeRuntime(bundle.weights, MINILM_L6.parts, target, emulation) for _ in range(2))
            helped.use_idle_core()
            for n_tokens in (2, 3, 17, 60, 256):
                ids = [101, *rng.integers(1000, 20_000, n_tokens - 2).tolist(), 102]
                for _ in range(3):
                    np.testing.assert_array_equal(helped(ids), alone(ids))
            assert helped_within(30, helped)

    def test_nor_does_a_helper_that_loses_its_core(self, small_model: EncoderWeights, slow_help: Path) -> None:
        for target in TARGETS:
            alone, helped = (NativeRuntime(small_model, PARTS, target, slow_help) for _ in range(2))
            helped.use_idle_core()
            for ids in prompts(400, seed=4):
                np.testing.assert_array_equal(helped(ids), alone(ids))
            assert helped_within(30, helped)

    def test_of_many_threads_one_at_a_time_is_helped(self, small_model: EncoderWeights) -> None:
        run = NativeRuntime(small_model, PARTS, targets_here()[0])
        many = prompts(400, seed=5)
        alone = [run(ids) for ids in many]
        run.use_idle_core()
        with ThreadPoolExecutor(8) as pool:
            for expected, found in zip(alone, pool.map(run, many), strict=True):
                np.testing.assert_array_equal(expected, found)

    def test_the_helper_is_of_the_idle_class_and_ends_with_its_model(self, small_model: EncoderWeights) -> None:
        before = helpers()
        run = NativeRuntime(small_model, PARTS, targets_here()[0])
        run.use_idle_core()
        run.use_idle_core()
        run([1, 2, 3])
        ends = time.monotonic() + 30
        # The helper sets its class itself.
        while not (ours := helpers() - before) and time.monotonic() < ends:
            time.sleep(0.01)
        assert len(ours) == 1
        del run
        gc.collect()
        while ours & helpers() and time.monotonic() < ends:
            time.sleep(0.01)
        assert not ours & helpers()

    @pytest.mark.parametrize("ending", ["", "os._exit(0)", "raise SystemExit(0)"])
    def test_a_program_may_end_in_the_middle_of_a_pass(self, ending: str) -> None:
        script = f"""
import os, sys, threading, time
from probes.encoders.native_runtime import NativeRuntime, targets_here
from tests.probes.encoders.test_native_runtime import small_weights
run = NativeRuntime(small_weights(), {PARTS!r}, targets_here()[0])
run.use_idle_core()
def forever():
    while True:
        run([number % {VOCABULARY} for number in range({POSITIONS})])
threading.Thread(target=forever, daemon=True).start()
time.sleep(0.3)
{ending}
"""
        subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=True, timeout=60)

    def test_a_forked_process_computes_alone(self) -> None:
        script = f"""
import os, sys
from probes.encoders.native_runtime import NativeRuntime, targets_here
from tests.probes.encoders.test_native_runtime import small_weights
run = NativeRuntime(small_weights(), {PARTS!r}, targets_here()[0])
run.use_idle_core()
expected = run([1, 2, 3]).tolist()
child = os.fork()
if child == 0:
    # Not os._exit: what runs at exit must not wait for a thread that this process has not got.
    sys.exit(0 if run([1, 2, 3]).tolist() == expected else 3)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
        subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=True, timeout=60)


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
