"""Load the encoder that a spec names, in the runtime that fits its precision. Only this module imports the runtimes."""

from __future__ import annotations

from pathlib import Path

from probes.encoders.exported import load_exported_encoder
from probes.encoders.spec import Encoder, EncoderSpec
from probes.encoders.torch_runtime import load_torch_encoder


def load_encoder(spec: EncoderSpec, directory: Path | None = None) -> Encoder:
    """Load the encoder that `spec` names, wherever its files are, in the runtime of its precision.

    Args:
        spec: which encoder.
        directory: look here only, for its original files or for what `elle export-encoder` wrote; otherwise
            $ELLE_ENCODER_DIR, encoders exported before, the Hugging Face cache and installed packages.

    float32 runs where `torch_runtime.torch_device` says; on a GPU the encoder is a `BatchEncoder`.

    Raises:
        EncoderNotFoundError: no place holds the files; the message lists the places.
        EncoderDigestError: the only files found are other ones.
        EncoderError: the runtime is not installed, or this machine computes other features than it should.
    """
    if spec.precision == "float32":
        return load_torch_encoder(spec, directory)
    return load_exported_encoder(spec, directory)
