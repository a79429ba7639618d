"""Run an exported encoder in our own int8 runtime or in ONNX Runtime, one prompt per forward pass, without torch."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Protocol

import numpy as np

from probes.encoders.bundle import BUNDLE_FILE, CHECK_TEXTS, Bundle, build_bundle, read_bundle, read_weights
from probes.encoders.files import (
    CACHE_HINT,
    CONFIG_FILE,
    ENCODER_DIR_VARIABLE,
    default_cache_dir,
    find_encoder,
    is_readable,
    require_config_digest,
    sha256_of_file,
)
from probes.encoders.native_runtime import NativeRuntime, targets_here
from probes.encoders.onnx_runtime import OnnxRuntime
from probes.encoders.spec import EncoderSpec, FloatArray
from probes.encoders.tokens import PromptTokenizer
from probes.errors import ArtifactError, EncoderError, EncoderNotFoundError

log = logging.getLogger(__name__)

#: Environment variable that names the one runtime to use: `native` or `onnxruntime`. Unset, the first that works.
RUNTIME_VARIABLE = "ELLE_ENCODER_RUNTIME"

RUNTIMES = ("native", "onnxruntime")

#: Least cosine between a machine's features and float32's of the same text. int8 gives .9995; a processor whose
#: int8 products saturate falls far below.
LEAST_COSINE = 0.995


class Runtime(Protocol):
    """The interface of a function from the token ids of one prompt to its features. Implementations are thread-safe."""

    @property
    def name(self) -> str:
        """The name of the runtime as people read it, for example `onnxruntime`."""
        ...

    def __call__(self, ids: Sequence[int]) -> FloatArray:
        """Return the features (d,) of one prompt."""
        ...


class ExportedEncoder:
    """Encodes text with an exported bundle. A call runs in the calling thread, without Python's lock.

    Args:
        bundle: the exported encoder; checked against its own float32 features here.

    Raises EncoderError if this machine computes other features than the ones exported, or if the tokenizer gives ids
    that the weights have no rows for.
    """

    def __init__(self, bundle: Bundle) -> None:
        spec = bundle.spec
        self._tokenizer = PromptTokenizer(bundle.tokenizer, spec.max_tokens, spec.truncation, spec.asides)
        if self._tokenizer.vocabulary > bundle.weights.vocabulary:
            raise EncoderError(
                f"token ids must be below {bundle.weights.vocabulary}, the rows of the embeddings; the tokenizer has "
                f"{self._tokenizer.vocabulary}. It is not this encoder's."
            )
        self._n_features = len(bundle.spec.parts) * bundle.weights.hidden
        self._spec = bundle.spec
        self._run = self._first_that_agrees(bundle)
        if self._spec.is_int8:
            self._spec = replace(self._spec, precision=_precision_of(self._run))

    @property
    def spec(self) -> EncoderSpec:
        """The spec of the encoder in the runtime's own arithmetic, which is not always the precision asked for."""
        return self._spec

    @property
    def n_features(self) -> int:
        """The width d of the features, which is the number of parts of the pooling times the hidden size."""
        return self._n_features

    @property
    def runtime(self) -> str:
        """The name of the runtime, which is `native` with its instruction set, or `onnxruntime`."""
        return self._run.name

    def use_idle_core(self) -> None:
        """Let a core that would idle help with a lone prompt from now on, if our own runtime serves."""
        if isinstance(self._run, NativeRuntime):
            self._run.use_idle_core()

    def encode(self, text: str) -> FloatArray:
        """Return the features of one text, shape (d,), float32.

        Raises DataError for text that is not valid Unicode, EncoderError if the features are not finite.
        """
        return self.encode_ids(self.tokenize(text))

    def tokenize(self, text: str) -> list[int]:
        """Return the token ids of one text as the encoder reads it."""
        return self._tokenizer(text)

    def encode_ids(self, ids: list[int]) -> FloatArray:
        """Return the features (d,) of token ids from `tokenize`. It raises what `encode` raises."""
        return self._spec.finite(self._run(ids))

    def agreement(self, reference: FloatArray) -> float:
        """Return the least cosine between our features of `CHECK_TEXTS` and the given ones, (n, d)."""
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
        return runtime

    def _agreement(self, runtime: Runtime, reference: FloatArray) -> float:
        ours = np.stack([runtime(self._tokenizer.whole(text)) for text in CHECK_TEXTS])
        norms = np.linalg.norm(ours, axis=1) * np.linalg.norm(reference, axis=1)
        return float(((ours * reference).sum(axis=1) / norms).min())


def _precision_of(runtime: Runtime) -> str:
    return "int8" if isinstance(runtime, NativeRuntime) else "int8-onnxruntime"


def _wanted_runtime() -> str | None:
    wanted = os.environ.get(RUNTIME_VARIABLE) or None
    if wanted not in (None, *RUNTIMES):
        raise EncoderError(f"{RUNTIME_VARIABLE} must be one of {', '.join(RUNTIMES)} or unset, got {wanted!r}.")
    return wanted


def _runtimes(bundle: Bundle) -> list[Callable[[], Runtime]]:
    """Return for each runtime that may serve a function that starts it, the best runtime first.

    Raises EncoderError for an unknown name.
    """
    wanted, spec = _wanted_runtime(), bundle.spec
    native = targets_here() if spec.precision == "int8" and wanted != "onnxruntime" else ()
    if wanted == "native" and not native:
        raise EncoderError(
            f"{RUNTIME_VARIABLE}=native needs an encoder of precision int8, x86-64 with AVX2, and the package "
            f"installed where a C compiler is; unset it, and ONNX Runtime serves."
        )
    onnx = partial(OnnxRuntime, bundle.weights, spec.parts)
    if not native:
        return [onnx]
    ours = partial(NativeRuntime, bundle.weights, spec.parts, native[0])
    return [ours] if wanted == "native" else [ours, onnx]


def pinned_here(spec: EncoderSpec, directory: Path | None = None) -> EncoderSpec:
    """Return the spec to fit a probe on: `spec` with all its digests and with the arithmetic of this machine.

    What the spec leaves out is taken from the original files, in `directory` or where `find_encoder` looks: the digest
    of config.json, and that of the weights that are exported. In int8 the arithmetic is that of ONNX Runtime if our
    own library does not run.

    Raises EncoderError or one of its subclasses if a digest is missing and the files are not found.
    """
    if spec.precision == "int8" and (_wanted_runtime() == "onnxruntime" or not targets_here()):
        spec = replace(spec, precision="int8-onnxruntime")
    spec = spec.pinned()
    if spec.config_sha256 is None:
        spec = replace(spec, config_sha256=sha256_of_file(find_encoder(spec, directory) / CONFIG_FILE))
    if spec.is_int8 and spec.tensors_sha256 is None:
        (weights,) = read_weights(spec, find_encoder(spec, directory), True)
        spec = replace(spec, tensors_sha256=weights.digest)
    return spec


def load_exported_encoder(
    spec: EncoderSpec, directory: Path | None = None, cache: Path | None = None
) -> ExportedEncoder:
    """Load the encoder of `spec` from the caller's bundle or the cache; else export it now and cache it.

    Each is held to the digests in `spec`. Where it has none of the weights that serve (a custom encoder of an older
    version), only the original files will do: they are exported at each start.

    Args:
        spec: which encoder.
        directory: a bundle or the encoder's original files; otherwise $ELLE_ENCODER_DIR, the cache, and then the
            places of `find_encoder`.
        cache: folder of exported encoders; None takes `default_cache_dir() / "encoders"`.

    Raises EncoderError or one of its subclasses.
    """
    require_config_digest(spec)
    _wanted_runtime()
    named = directory or (Path(os.environ[ENCODER_DIR_VARIABLE]) if os.environ.get(ENCODER_DIR_VARIABLE) else None)
    if named is not None and is_readable(named / BUNDLE_FILE):
        return ExportedEncoder(read_bundle(named).of(spec, str(named)))
    if directory is not None:
        # A directory that the caller names must hold the encoder, even if the cache has it too.
        find_encoder(spec, directory)
    if spec.pinned().tensors_sha256 is None:
        return ExportedEncoder(build_bundle(spec, find_encoder(spec, directory)))
    folder = cache or ((default := default_cache_dir()) and default / "encoders")
    kept = folder / replace(spec.pinned(), precision="int8", asides=None).identity[:32] if folder is not None else None
    if kept is not None and (encoder := _kept_encoder(spec, kept)) is not None:
        return encoder
    bundle = build_bundle(spec, find_encoder(spec, directory))
    _keep(bundle, kept)
    return ExportedEncoder(bundle)


def _kept_encoder(spec: EncoderSpec, kept: Path) -> ExportedEncoder | None:
    """Return the encoder in the cache, or None if the cache has none that can be used."""
    try:
        return ExportedEncoder(read_bundle(kept).of(spec, str(kept)))
    except EncoderNotFoundError:
        return None
    except EncoderError as error:
        # Torn, of another version, or not what its name says: it is a cache, and nobody has to delete it by hand.
        log.warning("exporting the encoder again, because the kept one cannot be used: %s", error)
        return None


def _keep(bundle: Bundle, kept: Path | None) -> None:
    """Write the bundle to the cache if that is possible. If not, only the next start is slower."""
    why: object = "there is no home directory"
    if kept is not None:
        try:
            bundle.save(kept, whatever_is_there=True)
        except ArtifactError as error:
            why = error
        else:
            return
    log.warning("the exported encoder is not kept, and every start exports it anew; %s: %s", CACHE_HINT, why)
