"""Provide data without a network: texts and code of the standard library, scikit-learn's images, generated signals."""

from __future__ import annotations

import ast
import sysconfig
import textwrap
import warnings
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

_TEST_FOLDERS = {"test", "tests", "idle_test"}


@dataclass(frozen=True)
class Corpus:
    """Holds samples, the group that each belongs to, and the part that is kept for training the model.

    `train` and the samples are disjoint by group, so the model never saw what its loss is measured on.
    """

    samples: list[Any]
    groups: NDArray[np.int64]
    train: list[Any] = field(default_factory=list)
    partners: list[Any] = field(default_factory=list)


@dataclass(frozen=True)
class _Function:
    module: str
    signature: str
    summary: str
    source: str
    in_tests: bool


@cache
def _library() -> tuple[list[_Function], list[tuple[str, str]]]:
    """Read every function of the standard library, and every paragraph of its docstrings with its module."""
    root = Path(sysconfig.get_paths()["stdlib"])
    functions: list[_Function] = []
    paragraphs: list[tuple[str, str]] = []
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root).parts
        if {"site-packages", "dist-packages"} & set(parts):
            continue
        try:
            source = path.read_text(encoding="utf-8")
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                tree = ast.parse(source)
        except (SyntaxError, UnicodeDecodeError, ValueError):
            continue  # the test suite keeps files that are wrong on purpose
        in_tests = bool(_TEST_FOLDERS & set(parts))
        _read_module(tree, source.splitlines(), "/".join(parts), in_tests, functions, paragraphs)
    return functions, paragraphs


def _read_module(
    tree: ast.Module,
    lines: list[str],
    module: str,
    in_tests: bool,
    functions: list[_Function],
    paragraphs: list[tuple[str, str]],
) -> None:
    for node in ast.walk(tree):
        if not isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        doc = ast.get_docstring(node) or ""
        if not in_tests:
            texts = (" ".join(text.split()) for text in doc.split("\n\n"))
            paragraphs += [(module, text) for text in texts if len(text.split()) >= 8]
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            body = node.body[1:] if doc and len(node.body) > 1 else node.body
            source = textwrap.dedent("\n".join(lines[body[0].lineno - 1 : node.end_lineno]))
            name = f"def {node.name}({ast.unparse(node.args)})"
            summary = " ".join(doc.split("\n\n")[0].split())
            functions.append(_Function(module, name, summary, f"{name}:\n{source}", in_tests))


def _numbered(names: list[str]) -> NDArray[np.int64]:
    return np.unique(names, return_inverse=True)[1].astype(np.int64)


def _split(samples: list[Any], names: list[str], train_share: float, limit: int, seed: int) -> Corpus:
    """Put whole groups into the model's training part until it is full, and keep `limit` samples of the rest."""
    rng = np.random.default_rng(seed)
    groups = _numbered(names)
    order = rng.permutation(groups.max() + 1)
    share = np.cumsum(np.bincount(groups)[order]) / len(groups)
    for_model = np.isin(groups, order[share <= train_share])
    rest = rng.permutation(np.flatnonzero(~for_model))[:limit]
    return Corpus([samples[i] for i in rest], groups[rest], [samples[i] for i in np.flatnonzero(for_model)])


def signature_pairs(limit: int) -> Corpus:
    """Return function signatures with the first paragraph of their docstrings; group = module."""
    functions = [f for f in _library()[0] if f.summary and not f.in_tests and "def __" not in f.signature]
    unique = list({(f.signature, f.summary): f for f in functions}.values())
    rng = np.random.default_rng(0)
    chosen = [unique[i] for i in rng.permutation(len(unique))[:limit]]
    return Corpus(
        [f.signature for f in chosen],
        _numbered([f.module for f in chosen]),
        partners=[f.summary for f in chosen],
    )


def prose(limit: int) -> Corpus:
    """Return docstring paragraphs of at least eight words; group = module; 30 % of the modules train the model."""
    texts = {text: module for module, text in _library()[1]}
    return _split(list(texts), list(texts.values()), 0.3, limit, seed=1)


def code(limit: int) -> Corpus:
    """Return function bodies without docstring, tests included; group = module; 30 % of the modules train the model."""
    functions = {f.source: f.module for f in _library()[0] if len(f.source) > 60}
    return _split(list(functions), list(functions.values()), 0.3, limit, seed=2)


def digits() -> Corpus:
    """Scikit-learn's 1,797 scans of handwritten digits, (1, 8, 8) in 0..1; group = the digit; no group is
    held back.

    There are too few to hold whole digits back for the model: a third of the scans, at random, trains it.
    """
    from sklearn.datasets import load_digits

    data = load_digits()
    images = (data.images / 16.0).astype(np.float32)[:, None]
    order = np.random.default_rng(3).permutation(len(images))
    third = len(images) // 3
    return Corpus(list(images[order[third:]]), data.target[order[third:]].astype(np.int64), list(images[order[:third]]))


def photo_crops(limit: int) -> Corpus:
    """Return crops (3, 16, 16) of the two photographs of scikit-learn; group = tile of 64 x 64 pixels.

    Crops overlap within a tile and never across: a random split is generous, as the article's was for
    satellite chips, and the split by tile shows by how much. 30 % of the tiles train the model.
    """
    from sklearn.datasets import load_sample_images

    crops, names = [], []
    for number, photo in enumerate(load_sample_images().images):
        pixels = (photo / 255.0).astype(np.float32).transpose(2, 0, 1)
        for top in range(0, pixels.shape[1] - 63, 64):
            for left in range(0, pixels.shape[2] - 63, 64):
                for y in range(top, top + 49, 8):
                    for x in range(left, left + 49, 8):
                        crops.append(np.ascontiguousarray(pixels[:, y : y + 16, x : x + 16]))
                        names.append(f"{number}/{top}/{left}")
    return _split(crops, names, 0.3, limit, seed=4)


SOUNDS = ("tone", "chirp", "two tones", "noise", "pulses", "vibrato", "decay", "harmonics")


def sounds(limit: int, length: int = 1600, rate: int = 8000) -> Corpus:
    """Generate waves of eight kinds with noise of random strength, (length,); group = kind and octave."""
    rng = np.random.default_rng(5)
    time = np.arange(length) / rate
    train_size = 2000
    waves, names = [], []
    for _ in range(limit + train_size):
        kind = SOUNDS[rng.integers(len(SOUNDS))]
        pitch = 110.0 * 2 ** rng.uniform(0, 4)
        wave = _sound(kind, pitch, time, rng) + 10 ** rng.uniform(-2, 0) * rng.normal(size=length)
        waves.append(((wave - wave.mean()) / wave.std()).astype(np.float32))
        names.append(f"{kind} {int(np.log2(pitch / 110.0))}")
    return Corpus(waves[train_size:], _numbered(names)[train_size:], waves[:train_size])


def _sound(kind: str, pitch: float, time: NDArray[Any], rng: np.random.Generator) -> NDArray[Any]:
    phase = 2 * np.pi * pitch * time + rng.uniform(0, 2 * np.pi)
    match kind:
        case "tone":
            wave = np.sin(phase)
        case "chirp":
            wave = np.sin(phase * (1 + rng.uniform(0.2, 2) * time / time[-1]))
        case "two tones":
            wave = np.sin(phase) + rng.uniform(0.3, 1) * np.sin(phase * rng.uniform(1.1, 2.9))
        case "noise":
            wave = np.convolve(rng.normal(size=time.size), np.ones(8) / 8, "same")
        case "pulses":
            wave = (np.sin(phase / 8) > 0.95).astype(float) * rng.normal(1, 0.3, size=time.size)
        case "vibrato":
            wave = np.sin(phase + rng.uniform(1, 6) * np.sin(2 * np.pi * rng.uniform(3, 30) * time))
        case "decay":
            wave = np.sin(phase) * np.exp(-time * rng.uniform(5, 60))
        case _:
            wave = sum(np.sin(k * phase) / k for k in range(1, rng.integers(3, 8)))
    return np.asarray(wave)


def scenes(limit: int, size: int = 16) -> Corpus:
    """Generate four-band "satellite" scenes (4, size, size) and where they lie, (2,) degrees.

    A group is a tile of 30 degrees.

    Texture, brightness and field pattern are smooth functions of the place plus chance, so that neighbours
    look alike, as they do on Earth. Nothing here is a picture of anything.
    """
    rng = np.random.default_rng(6)
    train_size = 3000
    places = np.stack([rng.uniform(-180, 180, limit + train_size), rng.uniform(-60, 60, limit + train_size)], axis=1)
    frequencies = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.fftfreq(size)[None]) + 1 / size
    images = [_scene(place, frequencies, rng) for place in places]
    tiles = ((places[:, 0] + 180) // 30 * 4 + (places[:, 1] + 60) // 30).astype(np.int64)
    return Corpus(
        images[train_size:],
        tiles[train_size:],
        list(zip(images[:train_size], places[:train_size], strict=True)),
        list(places[train_size:]),
    )


def _scene(place: NDArray[Any], frequencies: NDArray[Any], rng: np.random.Generator) -> NDArray[np.float32]:
    longitude, latitude = np.radians(place)
    roughness = 1.6 + np.sin(2 * longitude) * np.cos(latitude) + 0.3 * rng.normal()
    size = len(frequencies)
    spectrum = np.fft.fft2(rng.normal(size=(4, size, size))) / frequencies**roughness
    texture = np.fft.ifft2(spectrum).real
    texture /= texture.std(axis=(1, 2), keepdims=True)
    mixing = np.eye(4) + 0.8 * np.cos(longitude + np.arange(4)[:, None] - np.arange(4))
    bands = np.einsum("ij,jxy->ixy", mixing, texture) * 0.3
    if rng.random() < 0.5 + 0.4 * np.cos(3 * longitude):
        fields = rng.integers(0, 2, size=(4, 4)).repeat(size // 4, 0).repeat(size // 4, 1)
        bands = bands + 0.8 * fields
    bands = bands + np.sin(latitude * np.arange(1, 5))[:, None, None]
    return np.ascontiguousarray(bands, dtype=np.float32)
