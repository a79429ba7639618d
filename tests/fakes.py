"""Provide a fake encoder, and small probes and policies on it, for tests that are not about real features."""

from __future__ import annotations

import functools
import hashlib
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import yaml

from probes.artifacts import store as artifact
from probes.encoders.spec import EncoderSpec, FloatArray
from probes.errors import DataError
from probes.kinds.learning import KindRows, fit_kinds
from probes.probe import DifficultyProbe
from router.tuning.fitting.fit import fit_probe
from router.tuning.outcomes.datasets import Outcomes

N_FEATURES = 8

#: The kinds of `probe_with_kinds`; one has letters that no header may hold, and the second is assumed.
KINDS = ("short factual question", "Grüße & small talk", "competition mathematics")


def fake_spec(marker: str = "0") -> EncoderSpec:
    """Return a spec that no real files match; different markers are different encoders."""
    return EncoderSpec(
        model_id="fake/encoder",
        revision="none",
        weights_sha256=hashlib.sha256(marker.encode()).hexdigest(),
        tokenizer_sha256="0" * 64,
        pooling=("mean@0",),
        max_tokens=16,
    )


@functools.cache  # tests encode the same thousands of texts again and again
def _noise(text: str) -> FloatArray:
    seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8])
    return np.random.default_rng(seed).standard_normal(N_FEATURES).astype(np.float32)


class FakeEncoder:
    """Encodes a text as noise that the text seeds. Prompts that name a fault get it; `gate` can hold encodings up."""

    def __init__(self, spec: EncoderSpec | None = None) -> None:
        self._spec = spec or fake_spec()
        self.gate = threading.Event()
        self.gate.set()
        self.encoded: list[str] = []

    @property
    def spec(self) -> EncoderSpec:
        return self._spec

    @property
    def n_features(self) -> int:
        return N_FEATURES

    def encode(self, text: str) -> FloatArray:
        self.gate.wait(30)
        return self._features(text)

    def _features(self, text: str) -> FloatArray:
        self.encoded.append(text)
        if "make the encoder raise" in text:
            raise RuntimeError("the forward pass failed")
        if "make the features NaN" in text:
            return np.full(N_FEATURES, np.nan, dtype=np.float32)
        return _noise(text).copy()


class FakeHelpedEncoder(FakeEncoder):
    """A `FakeEncoder` that an idle core can help, as it can help ours. It notes the thread of each prompt."""

    def __init__(self) -> None:
        super().__init__()
        self.helped = False
        self.threads: list[str] = []

    def use_idle_core(self) -> None:
        self.helped = True

    def _features(self, text: str) -> FloatArray:
        self.threads.append(threading.current_thread().name)
        return super()._features(text)


class FakeBatchEncoder(FakeEncoder):
    """Encodes as `FakeEncoder` does, in batches, with a token for each character. One fault fails its whole batch.

    tokenized: texts, in order. batches: what was encoded together, failures too, noted before `gate`. stepwise: each
    opening of the gate lets one batch pass.
    """

    def __init__(self, batch_tokens: int = 64, *, stepwise: bool = False) -> None:
        super().__init__()
        self.batch_tokens = batch_tokens
        self.stepwise = stepwise
        self.tokenized: list[str] = []
        self.batches: list[list[str]] = []

    def tokenize(self, text: str) -> list[int]:
        self.tokenized.append(text)
        if "make tokenising fail" in text:
            raise DataError("no text")
        return [ord(character) for character in text]

    def encode_batch(self, prompts: Sequence[Sequence[int]]) -> FloatArray:
        texts = ["".join(map(chr, tokens)) for tokens in prompts]
        self.batches.append(texts)
        self.gate.wait(30)
        if self.stepwise:
            self.gate.clear()
        return np.stack([self._features(text) for text in texts])


@functools.cache  # a probe is a frozen value, and fitting one takes seconds
def fake_probe(models: tuple[str, ...] = ("small", "large"), spec: EncoderSpec | None = None) -> DifficultyProbe:
    """Return a probe fitted on 400 fake prompts whose losses follow the first feature."""
    encoder = FakeEncoder(spec)
    texts = tuple(f"prompt number {i}" for i in range(400))
    features = np.stack([encoder.encode(text) for text in texts])
    rng = np.random.default_rng(0)
    logits = features[:, :1] + np.linspace(1.0, -1.0, len(models))
    scores = (rng.random((400, len(models))) > 1 / (1 + np.exp(-logits))).astype(float)
    unknown = np.full(scores.shape, np.nan)
    outcomes = Outcomes(
        texts=texts,
        ids=texts,
        groups=("",) * 400,
        models=models,
        scores=scores,
        cost_usd=unknown,
        input_tokens=unknown,
        output_tokens=unknown,
        sources=(),
    )
    return fit_probe(outcomes, features, encoder.spec, title="fake").probe


@functools.cache
def probe_with_kinds(models: tuple[str, ...] = ("small", "large")) -> DifficultyProbe:
    """Return the fake probe with three kinds of request, by which of three features is the largest."""
    encoder = FakeEncoder()
    texts = [f"prompt number {i}" for i in range(400)]
    features = np.stack([encoder.encode(text) for text in texts])
    kinds = [KINDS[k] for k in features[:, :3].argmax(axis=1)]
    return replace(fake_probe(models), kinds=fit_kinds(KindRows(features, kinds, texts), {KINDS[1]: True}))


def write_policy(
    folder: Path,
    fitted: DifficultyProbe | None = None,
    *,
    name: str = "test",
    names: tuple[str, ...] = ("small", "large"),
    **changes: object,
) -> Path:
    """Write a policy file on a fake probe, saved beside it; keyword arguments replace keys of the file."""
    if not (folder / "probe").exists():
        artifact.save(fitted or fake_probe(names), folder / "probe")
    policy: dict[str, object] = {
        "schema": "elle.policy/1",
        "name": name,
        "probe": "probe",
        "candidates": [{"name": n, "model": f"openai/{n}", "api_base": "canned"} for n in names],
        "rule": {"kind": "gain", "thresholds": [0.1] * (len(names) - 1)},
        "safe_default": names[-1],
    }
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(policy | changes), "utf-8")
    return path
