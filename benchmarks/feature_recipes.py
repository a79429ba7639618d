"""Define which numbers of a MiniLM pass serve as features, and how they are combined.

benchmarks/feature_study.py compares these recipes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]

Floats = NDArray[np.float64]

MAX_TOKENS = 256

REFERENCE = "mean 0+3+6"


@dataclass(frozen=True)
class Task:
    """Holds a data set of n prompts: scores (n, 2), weak model first, numbers of rows (n,), and pooled states."""

    prompts: list[str]
    groups: NDArray[np.str_]
    scores: Floats
    weight: Floats
    mean: Array  # (n, layers, width): mean over tokens
    peak: Array  # (n, layers, width): maximum over tokens
    tokens: NDArray[np.int64]  # (n,)

    @property
    def gain(self) -> Floats:
        """Return the quality of the strong model minus that of the weak one, (n,), from -1 to 1."""
        return self.scores[:, 1] - self.scores[:, 0]


# --- features ---


Lift = Callable[[Array, NDArray[np.bool_]], Array]  # standardised columns, training rows -> features


@dataclass(frozen=True)
class Block:
    """Names columns that are standardised together and then scaled to a total variance of `scale` squared."""

    columns: Callable[[Task], Array]
    scale: float = 1.0


@dataclass(frozen=True)
class Recipe:
    """Sets blocks side by side, and maps them all to other features if `lift` is given."""

    blocks: tuple[Block, ...]
    lift: Lift | None = None


def side_by_side(*blocks: Block, lift: Lift | None = None) -> Recipe:
    """Return the recipe that sets these blocks side by side."""
    return Recipe(blocks, lift)


def mean_of(layer: int) -> Callable[[Task], Array]:
    """Return the mean over tokens of one layer; layer 0 is the output of the embedding."""
    return lambda task: task.mean[:, layer]


def max_of(layer: int) -> Callable[[Task], Array]:
    """Return the maximum over tokens of one layer."""
    return lambda task: task.peak[:, layer]


def log_tokens(task: Task) -> Array:
    """Return the logarithm of the number of tokens, (n, 1)."""
    return np.log(task.tokens)[:, None].astype(np.float32)


def text_statistics(task: Task) -> Array:
    """Return six plain features of each text, (n, 6): shares of digits, operators and capitals, and lengths."""

    def of(text: str) -> list[float]:
        n, words = max(len(text), 1), max(len(text.split()), 1)
        shares = [sum(test(c) for c in text) / n for test in (str.isdigit, "+-*/=^<>".__contains__, str.isupper)]
        return [*shares, np.log(n), np.log(words), n / words]

    return np.array([of(p) for p in task.prompts], np.float32)


def hashed_words(width: int) -> Callable[[Task], Array]:
    """Hash lower-case words and punctuation with a sign (blake2b) into columns of sub-linear counts."""
    import re

    def columns(task: Task) -> Array:
        table = np.zeros((len(task.prompts), width), np.float32)
        for row, prompt in zip(table, task.prompts, strict=True):
            words, counts = np.unique(re.findall(r"\w+|[^\w\s]", prompt.lower()), return_counts=True)
            for word, count in zip(words, counts, strict=True):
                code = int.from_bytes(hashlib.blake2b(str(word).encode(), digest_size=8).digest(), "little")
                row[code % width] += (1 if code >> 63 else -1) * (1 + np.log(count))
        return np.asarray(table / np.maximum(np.linalg.norm(table, axis=1, keepdims=True), 1e-9), np.float32)

    return columns


def signs(rows: int, columns: int, seed: int) -> Array:
    """Return a matrix of +1 and -1 from SHAKE-256, which has the same bits on every machine."""
    raw = hashlib.shake_256(f"elle-signs-{seed}".encode()).digest(rows * columns // 8)
    return np.unpackbits(np.frombuffer(raw, np.uint8)).reshape(rows, columns).astype(np.float32) * 2 - 1


def fourier(width: int, seed: int) -> Lift:
    """Return random Fourier features of the Gaussian kernel (Rahimi & Recht 2007) in directions of +1 and -1."""

    def lift(X: Array, train: NDArray[np.bool_]) -> Array:
        angles = X @ signs(X.shape[1], width // 2, seed)
        return np.concatenate([np.cos(angles), np.sin(angles)], axis=1) * np.float32(np.sqrt(2 / width))

    return lift


def rectified(width: int, seed: int) -> Lift:
    """Return a function that makes random features of x: max(0, s x), with s of +1 and -1 (Cho & Saul 2009)."""
    return lambda X, train: np.maximum(X @ signs(X.shape[1], width, seed), 0) * np.float32(np.sqrt(2 / width))


def landmarks(width: int, seed: int, sharpness: float = 1.0) -> Lift:
    """Return Nystrom features (Williams & Seeger 2001) of exp(-sharpness |x - c|^2 / 2), c a training row."""

    def kernel(X: Array, C: Array) -> Array:
        squares = (X**2).sum(axis=1)[:, None] + (C**2).sum(axis=1) - 2 * X @ C.T
        return np.asarray(np.exp(-sharpness / 2 * np.maximum(squares, 0)), np.float32)

    def lift(X: Array, train: NDArray[np.bool_]) -> Array:
        rows = np.flatnonzero(train)
        rng = np.random.Generator(np.random.PCG64(seed))
        C = X[rng.choice(rows, min(width, len(rows) // 2), replace=False)]
        values, vectors = np.linalg.eigh(kernel(C, C).astype(np.float64))
        whiten = (vectors / np.sqrt(np.maximum(values, 1e-6))).astype(np.float32)
        return np.asarray(kernel(X, C) @ whiten, np.float32)

    return lift


M3, M4, X3 = Block(mean_of(3)), Block(mean_of(4)), Block(max_of(3))

RECIPES: dict[str, Recipe] = {
    REFERENCE: side_by_side(*(Block(mean_of(layer)) for layer in (0, 3, 6))),
    "landmarks 512 of mean 3, max 3": side_by_side(M3, X3, lift=landmarks(512, 0)),
    "the same, another draw": side_by_side(M3, X3, lift=landmarks(512, 1)),
    "landmarks 256 of mean 3, max 3": side_by_side(M3, X3, lift=landmarks(256, 0)),
    "landmarks 512 of mean 3+4, max 3": side_by_side(M3, M4, X3, lift=landmarks(512, 0)),
    "landmarks 512 of mean 3": side_by_side(M3, lift=landmarks(512, 0)),
    "mean 3": side_by_side(M3),
    "mean 3, max 3": side_by_side(M3, X3),
    "mean 3+4, max 3": side_by_side(M3, M4, X3),
    "mean 3, max 3, log tokens": side_by_side(M3, X3, Block(log_tokens, 0.3)),
    "mean 3, max 3, statistics": side_by_side(M3, X3, Block(text_statistics, 0.3)),
    "mean 3, max 3, hashed words 1024": side_by_side(M3, X3, Block(hashed_words(1024), 0.7)),
    "landmarks 512 of mean 3, max 3, hashed words": side_by_side(
        M3, X3, Block(hashed_words(1024), 0.7), lift=landmarks(512, 0)
    ),
    "mean 6": side_by_side(Block(mean_of(6))),
    "Fourier 2048 of mean 3": side_by_side(M3, lift=fourier(2048, 0)),
    "ReLU 2048 of mean 3": side_by_side(M3, lift=rectified(2048, 0)),
}


def design(recipe: Recipe, raw: list[Array], train: NDArray[np.bool_]) -> Array:
    """Return features (n, d), standardised by the training rows, with a total variance of one before the lift."""
    total = np.sqrt(sum(block.scale**2 for block in recipe.blocks))
    parts = []
    for block, X in zip(recipe.blocks, raw, strict=True):
        spread = X[train].std(axis=0, dtype=np.float64)
        Z = (X - X[train].mean(axis=0, dtype=np.float64)) / np.where(spread > 1e-9, spread, 1)
        parts.append((Z * (block.scale / total / np.sqrt(Z.shape[1]))).astype(np.float32))
    features = np.concatenate(parts, axis=1)
    return recipe.lift(features, train) if recipe.lift else features
