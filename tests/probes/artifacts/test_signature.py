"""Tests of signed probes: a signature holds for its key and its bytes only."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from probes.artifacts import store as artifact
from probes.errors import (
    ArtifactSignatureError,
    ArtifactTruncatedError,
    DataError,
)
from tests.probes.artifacts.edits import MakeProbe, edit_tensors

KEY = bytes(range(32))

PUBLIC_KEY = Ed25519PrivateKey.from_private_bytes(KEY).public_key().public_bytes_raw()


def test_a_signed_artifact_is_accepted_for_its_key_only(saved: Path) -> None:
    with pytest.raises(ArtifactSignatureError, match=r"has no probe\.sig"):
        artifact.verify(saved, PUBLIC_KEY)
    artifact.sign(saved, KEY)
    artifact.verify(saved, PUBLIC_KEY)
    assert artifact.load(saved, PUBLIC_KEY).models == ("small", "large")
    other = Ed25519PrivateKey.from_private_bytes(KEY[::-1]).public_key().public_bytes_raw()
    with pytest.raises(ArtifactSignatureError, match="by the key given"):
        artifact.load(saved, other)


def test_a_signature_covers_the_tensors_and_does_not_outlive_them(saved: Path, make_probe: MakeProbe) -> None:
    artifact.sign(saved, KEY)
    edit_tensors(saved, lambda t: t["linear.intercept"].__iadd__(1.0))
    with pytest.raises(ArtifactSignatureError):
        artifact.load(saved, PUBLIC_KEY)
    artifact.save(make_probe(), saved)
    assert not (saved / "probe.sig").exists()


@pytest.mark.parametrize("content", ["", "zz", "00" * 64, "é"])
def test_a_broken_signature_is_a_signature_error(saved: Path, content: str) -> None:
    (saved / "probe.sig").write_text(content)
    with pytest.raises(ArtifactSignatureError):
        artifact.load(saved, PUBLIC_KEY)


def test_a_key_of_the_wrong_length_is_refused(saved: Path) -> None:
    with pytest.raises(DataError, match="32 raw bytes"):
        artifact.sign(saved, b"short")
    with pytest.raises(DataError, match="32 raw bytes"):
        artifact.verify(saved, b"short")


def test_a_broken_artifact_is_not_signed(saved: Path) -> None:
    (saved / "probe.safetensors").write_bytes(b"")
    with pytest.raises(ArtifactTruncatedError):
        artifact.sign(saved, KEY)
    assert not (saved / "probe.sig").exists()
