"""Make a small BERT with random weights, compute its network by hand, and compile the C library for a test."""

from __future__ import annotations

import shutil
import subprocess
import tomllib
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from probes.encoders.native_runtime import targets_here
from probes.encoders.quantise import export_weights, quantise
from probes.encoders.weights import EncoderWeights

ROOT = Path(__file__).parents[3]

PARTS = (("mean", 0), ("cls", 2), ("mean", 3), ("max", 4))

needs_it = pytest.mark.skipif(not targets_here(), reason="no compiled library that this processor can run")

HIDDEN, HEADS, INNER, LAYERS, VOCABULARY, POSITIONS = 64, 2, 96, 2, 50, 70


def random_weights() -> dict[str, npt.NDArray[np.float32]]:
    """Return the tensors of a small BERT, tokens of different sizes among them."""
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
    """Computes the same network in numpy, float64 but for its int8 products, as the graph is meant to."""

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
        # In float32, as all code does it: the largest value of a token lies between two integers.
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


def compiled(tmp_path_factory: pytest.TempPathFactory, *defines: str) -> Path:
    if (compiler := shutil.which("cc")) is None:
        pytest.skip("no C compiler")
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["setuptools"]["ext-modules"][0]
    out = tmp_path_factory.mktemp("native") / "library.so"
    sources = [str(ROOT / source) for source in settings["sources"]]
    flags = [*settings["extra-compile-args"], *defines, "-shared", "-fPIC"]
    subprocess.run([compiler, *flags, "-o", str(out), *sources, "-lm"], check=True)
    return out


def prompts(n: int, seed: int) -> list[list[int]]:
    rng = np.random.default_rng(seed)
    return [rng.integers(0, VOCABULARY, n_tokens).tolist() for n_tokens in rng.integers(1, POSITIONS, n)]
