"""An exported encoder: a directory that serves with onnxruntime and tokenizers alone, digests checked.

    model.onnx  tokenizer.json  check.safetensors  bundle.json

`bundle.json` holds the spec and the SHA-256 of each other file. `check.safetensors` holds the float32 features of
`CHECK_TEXTS`, so that a machine whose arithmetic spoils them is noticed when it loads, not in its decisions.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save
from safetensors.numpy import load_file as load_tensors

from probes.atomic_write import replace_directory
from probes.encoders.files import CONFIG_FILE, TOKENIZER_FILE, WEIGHTS_FILE, check_files
from probes.encoders.onnx_graph import bert_graph
from probes.encoders.onnx_runtime import OnnxRuntime
from probes.encoders.spec import EncoderSpec, FloatArray
from probes.encoders.tokens import PromptTokenizer
from probes.errors import EncoderDigestError, EncoderError, EncoderNotFoundError

MODEL_FILE, CHECK_FILE, BUNDLE_FILE = "model.onnx", "check.safetensors", "bundle.json"
FILES = (MODEL_FILE, TOKENIZER_FILE, CHECK_FILE)

_SCHEMA = 1

#: Written for this purpose: short and long, prose, code, figures, other scripts.
CHECK_TEXTS = (
    "What is the capital of Mongolia?",
    "def median(xs):\n    xs = sorted(xs)\n    return xs[len(xs) // 2]\nFix the even case and add a type hint.",
    "Eine Kiste wiegt 12,5 kg, drei Viertel davon sind Inhalt. Wie schwer ist die leere Kiste?",
    "次の文を英語に訳してください。電車は雪のために遅れています。",
    "Prove or refute: every bounded sequence of real numbers whose consecutive differences tend to zero converges. "
    "State which theorems you use, give a counterexample if there is one, and say what changes if the differences are "
    "summable. " * 4,
)


@dataclass(frozen=True)
class Bundle:
    """An exported encoder in memory. `contents` is what a bundle's directory holds, by file name."""

    spec: EncoderSpec
    contents: Mapping[str, bytes]

    @property
    def digest(self) -> str:
        """SHA-256 of the ONNX model."""
        return hashlib.sha256(self.contents[MODEL_FILE]).hexdigest()

    @property
    def check_features(self) -> FloatArray:
        """Float32 features of `CHECK_TEXTS`, (n, d)."""
        features: FloatArray = load(self.contents[CHECK_FILE])["features"]
        return features

    def save(self, path: Path) -> None:
        """Write it to a directory, all at once. Raises ArtifactError where that cannot be done."""
        replace_directory(path, self.contents, may_hold=(*FILES, BUNDLE_FILE))


def build_bundle(spec: EncoderSpec, source: Path) -> Bundle:
    """Export the encoder whose files are in `source`; the same files give the same bytes.

    Raises EncoderError for an architecture that cannot be exported, or without `onnx` installed.
    """
    check_files(spec, source)
    weights = {name: np.asarray(value, np.float32) for name, value in load_tensors(source / WEIGHTS_FILE).items()}
    config = json.loads((source / CONFIG_FILE).read_text("utf-8"))
    try:
        reference = bert_graph(weights, config, spec.parts, "float32")
        model = reference if spec.precision == "float32" else bert_graph(weights, config, spec.parts, spec.precision)
    except ModuleNotFoundError as error:
        raise EncoderError(
            f"exporting an encoder needs {error.name}, which is not installed; install it with "
            f"`pip install 'elle-router[serve]'`, or export elsewhere and point ELLE_ENCODER_DIR at the bundle."
        ) from error
    contents = {
        MODEL_FILE: model,
        TOKENIZER_FILE: (source / TOKENIZER_FILE).read_bytes(),
        CHECK_FILE: save({"features": _reference_features(reference, spec, source)}),
    }
    about = {
        "schema": _SCHEMA,
        "encoder": spec.to_dict(),
        "files": {name: hashlib.sha256(data).hexdigest() for name, data in contents.items()},
    }
    return Bundle(spec, contents | {BUNDLE_FILE: json.dumps(about, indent=2).encode()})


def read_bundle(path: Path) -> Bundle:
    """The bundle in a directory, every digest checked.

    Raises EncoderNotFoundError, EncoderDigestError, or EncoderError for a `bundle.json` that cannot be read.
    """
    absent = [name for name in (*FILES, BUNDLE_FILE) if not (path / name).is_file()]
    if absent:
        raise EncoderNotFoundError(f"{path} has no {', '.join(absent)}")
    contents = {name: (path / name).read_bytes() for name in (*FILES, BUNDLE_FILE)}
    try:
        about: dict[str, Any] = json.loads(contents[BUNDLE_FILE])
        schema, digests, spec = about["schema"], dict(about["files"]), EncoderSpec.from_dict(about["encoder"])
    except (ValueError, KeyError, TypeError) as error:
        raise EncoderError(f"{path / BUNDLE_FILE} cannot be read ({error!r}); export the encoder again.") from error
    if schema != _SCHEMA:
        raise EncoderError(f"{path / BUNDLE_FILE} must have schema {_SCHEMA}, got {schema!r}; export it again.")
    for name in FILES:
        if hashlib.sha256(contents[name]).hexdigest() != digests.get(name):
            raise EncoderDigestError(f"{path / name} differs from the SHA-256 in {BUNDLE_FILE}; export it again.")
    bundle = Bundle(spec, contents)
    try:
        bundle.check_features.shape  # noqa: B018 - reading it is the check
    except (SafetensorError, KeyError) as error:
        raise EncoderError(f"{path / CHECK_FILE} holds no tensor `features`; export it again.") from error
    return bundle


def _reference_features(model: bytes, spec: EncoderSpec, source: Path) -> FloatArray:
    tokenizer = PromptTokenizer(source / TOKENIZER_FILE, spec.max_tokens, spec.truncation)
    run = OnnxRuntime(model)
    return np.stack([run(tokenizer(text)) for text in CHECK_TEXTS])
