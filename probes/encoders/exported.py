"""What serves: an exported encoder in our own int8 runtime or in ONNX Runtime, one prompt a forward pass, no torch."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Protocol

import numpy as np

from probes.encoders.bundle import BUNDLE_FILE, CHECK_TEXTS, MODEL_FILE, Bundle, build_bundle, read_bundle
from probes.encoders.files import ENCODER_DIR_VARIABLE, TOKENIZER_FILE, default_cache_dir, find_encoder
from probes.encoders.native_runtime import NativeRuntime, targets_here
from probes.encoders.onnx_runtime import OnnxRuntime
from probes.encoders.spec import EncoderSpec, FloatArray
from probes.encoders.tokens import PromptTokenizer
from probes.errors import ArtifactError, EncoderDigestError, EncoderError, EncoderNotFoundError

log = logging.getLogger(__name__)

#: Environment variable that names the one runtime to use: `native` or `onnxruntime`. Unset, the first that works.
RUNTIME_VARIABLE = "ELLE_ENCODER_RUNTIME"

RUNTIMES = ("native", "onnxruntime")

#: Least cosine between a machine's features and float32's of the same text. int8 gives .9995; a processor whose
#: int8 products saturate falls far below.
LEAST_COSINE = 0.995


class Runtime(Protocol):
    """Token ids of one prompt to features; thread-safe."""

    @property
    def name(self) -> str:
        """What runs, for people."""
        ...

    def __call__(self, ids: Sequence[int]) -> FloatArray:
        """Features (d,) of one prompt."""
        ...


class ExportedEncoder:
    """An exported encoder. Thread-safe: a call runs in the calling thread, without Python's lock.

    Args:
        bundle: the exported encoder; checked against its own float32 features here.

    Raises EncoderError if this machine computes other features than the ones exported.
    """

    def __init__(self, bundle: Bundle) -> None:
        self._spec = bundle.spec
        with TemporaryDirectory() as folder:
            path = Path(folder) / TOKENIZER_FILE
            path.write_bytes(bundle.contents[TOKENIZER_FILE])
            self._tokenizer = PromptTokenizer(path, bundle.spec.max_tokens, bundle.spec.truncation)
        self._run = self._first_that_agrees(bundle)

    @property
    def spec(self) -> EncoderSpec:
        """Which encoder this is."""
        return self._spec

    @property
    def n_features(self) -> int:
        """Width d of the features: parts of the pooling times hidden size."""
        return self._n_features

    @property
    def runtime(self) -> str:
        """What runs it: `native` with its instruction set, or `onnxruntime`."""
        return self._run.name

    def use_idle_core(self) -> None:
        """From now on let a core that would idle help with a lone prompt, if our own runtime serves."""
        if isinstance(self._run, NativeRuntime):
            self._run.use_idle_core()

    def encode(self, text: str) -> FloatArray:
        """Features of one text, shape (d,), float32.

        Raises DataError for text that is not valid Unicode, EncoderError if the features are not finite.
        """
        return self.encode_ids(self.tokenize(text))

    def tokenize(self, text: str) -> list[int]:
        """Token ids of one text as the encoder reads it."""
        return self._tokenizer(text)

    def encode_ids(self, ids: list[int]) -> FloatArray:
        """Features of token ids from `tokenize`; errors as `encode`."""
        features = self._run(ids)
        if not np.isfinite(features).all():
            raise EncoderError(f"features must be finite, {self._spec.model_id} gave NaN or infinity.")
        return features

    def agreement(self, reference: FloatArray) -> float:
        """Least cosine between our features of `CHECK_TEXTS` and these, (n, d)."""
        return self._agreement(self._run, reference)

    def _first_that_agrees(self, bundle: Bundle) -> Runtime:
        *others, last = _runtimes(bundle)
        for start in others:
            try:
                return self._checked(start(), bundle.check_features)
            except EncoderError as error:
                log.warning("the next runtime serves, because this one cannot: %s", error)
        return self._checked(last(), bundle.check_features)

    def _checked(self, runtime: Runtime, reference: FloatArray) -> Runtime:
        cosine = self._agreement(runtime, reference)
        # A comparison that NaN fails.
        if not cosine >= LEAST_COSINE:
            raise EncoderError(
                f"this machine must give the features of {self._spec.model_id} that were exported, cosine at least "
                f"{LEAST_COSINE}, {runtime.name} gave {cosine:.4f}; the processor may lack exact int8 products. Use a "
                f"probe of precision float32 here."
            )
        self._n_features = int(reference.shape[1])
        return runtime

    def _agreement(self, runtime: Runtime, reference: FloatArray) -> float:
        ours = np.stack([runtime(self.tokenize(text)) for text in CHECK_TEXTS])
        if ours.shape != reference.shape:
            raise EncoderError(f"reference features must have shape {ours.shape}, got {reference.shape}.")
        norms = np.linalg.norm(ours, axis=1) * np.linalg.norm(reference, axis=1)
        return float(((ours * reference).sum(axis=1) / norms).min())


def _runtimes(bundle: Bundle) -> list[Callable[[], Runtime]]:
    """How to start each runtime that may serve here, the best first. Raises EncoderError for a wrong name of one."""
    wanted = os.environ.get(RUNTIME_VARIABLE) or None
    if wanted not in (None, *RUNTIMES):
        raise EncoderError(f"{RUNTIME_VARIABLE} must be one of {', '.join(RUNTIMES)} or unset, got {wanted!r}.")
    model, spec = bundle.contents[MODEL_FILE], bundle.spec
    native = targets_here() if spec.precision == "int8" and wanted != "onnxruntime" else ()
    if wanted == "native" and not native:
        raise EncoderError(
            f"{RUNTIME_VARIABLE}=native needs an int8 encoder, x86-64 with AVX2, and the package installed where a C "
            f"compiler is; unset it, and ONNX Runtime serves."
        )
    starts: list[Callable[[], Runtime]] = [partial(NativeRuntime, model, spec.parts, native[0])] if native else []
    return starts if wanted == "native" else [*starts, partial(OnnxRuntime, model)]


def load_exported_encoder(
    spec: EncoderSpec, directory: Path | None = None, cache: Path | None = None
) -> ExportedEncoder:
    """The exported encoder of `spec`: a bundle named by the caller, one kept in the cache, or exported now and kept.

    Args:
        spec: which encoder.
        directory: a bundle or the encoder's original files; otherwise $ELLE_ENCODER_DIR, the cache, and then the
            places of `find_encoder`.
        cache: folder of exported encoders; None takes `default_cache_dir() / "encoders"`.

    Raises EncoderError and its kinds.
    """
    kept = (cache or default_cache_dir() / "encoders") / spec.identity[:32]
    named = directory or (Path(os.environ[ENCODER_DIR_VARIABLE]) if os.environ.get(ENCODER_DIR_VARIABLE) else None)
    if named is not None and (named / BUNDLE_FILE).exists():
        return ExportedEncoder(_of_spec(read_bundle(named), spec, named))
    if directory is not None:
        # What a caller names must hold the encoder, also where the cache would do.
        find_encoder(spec, directory)
    try:
        return ExportedEncoder(_of_spec(read_bundle(kept), spec, kept))
    except EncoderNotFoundError:
        pass
    except EncoderDigestError as error:
        log.warning("exporting the encoder again: %s", error)
    bundle = build_bundle(spec, find_encoder(spec, directory))
    try:
        bundle.save(kept)
    except ArtifactError as error:
        # Only the next start is slower for it.
        log.warning("the exported encoder is not kept: %s", error)
    return ExportedEncoder(bundle)


def _of_spec(bundle: Bundle, spec: EncoderSpec, path: Path) -> Bundle:
    if bundle.spec.identity != spec.identity:
        raise EncoderDigestError(
            f"{path} must hold encoder {spec.identity[:12]}... ({spec.model_id}, {spec.precision}), it holds "
            f"{bundle.spec.identity[:12]}... ({bundle.spec.model_id}, {bundle.spec.precision}); export the one asked "
            f"for with `elle export-encoder`, or refit the probe."
        )
    return bundle
