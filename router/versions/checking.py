"""Check whether policies can decide on this machine, before any of them is made active (`check_policies`)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from probes.encoders.load import load_encoder
from router.policies.loading import ServedPolicy


def check_policies(policies: Sequence[ServedPolicy], encoder_dir: Path | None = None) -> None:
    """Let each probe judge one prompt with the encoder that it was fitted on.

    encoder_dir: the folder of the encoder's files; None looks in the usual places.

    Raises EncoderError if the encoder is not found, or is another one.
    """
    specs = {one.encoder_spec.identity: one.encoder_spec for one in policies if one.encoder_spec is not None}
    encoders = {identity: load_encoder(spec, encoder_dir) for identity, spec in specs.items()}
    for policy in policies:
        if policy.encoder_spec is not None:
            encoder = encoders[policy.encoder_spec.identity]
            policy.check_encoder(encoder)
            policy.judge(encoder.encode("a prompt"))
