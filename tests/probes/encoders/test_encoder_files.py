"""Where the encoder's files are: known by their digests, and clear about what is missing."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from probes.encoders.files import CONFIG_FILE, TOKENIZER_FILE, WEIGHTS_FILE, find_encoder
from probes.encoders.spec import MINILM_L6
from probes.errors import EncoderDigestError, EncoderNotFoundError


def test_a_named_folder_is_as_good_as_any_place(copied_encoder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ELLE_ENCODER_DIR", str(copied_encoder))
    assert find_encoder(MINILM_L6) == copied_encoder


def test_the_hugging_face_cache_is_read_in_its_own_layout(
    copied_encoder: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path_factory.mktemp("hub")
    place = cache / "models--sentence-transformers--all-MiniLM-L6-v2" / "snapshots" / MINILM_L6.revision
    shutil.copytree(copied_encoder, place, symlinks=True)
    monkeypatch.setenv("HF_HUB_CACHE", str(cache))
    assert find_encoder(MINILM_L6) == place


def test_missing_files_are_named_with_how_to_get_them(tmp_path: Path) -> None:
    with pytest.raises(EncoderNotFoundError) as caught:
        find_encoder(MINILM_L6, tmp_path)
    message = str(caught.value)
    assert str(tmp_path) in message
    assert f"hf download {MINILM_L6.model_id} --revision {MINILM_L6.revision}" in message


@pytest.mark.parametrize("name", [WEIGHTS_FILE, TOKENIZER_FILE, CONFIG_FILE])
def test_files_of_another_digest_are_refused(copied_encoder: Path, name: str) -> None:
    contents = (copied_encoder / name).read_bytes()
    (copied_encoder / name).unlink()
    (copied_encoder / name).write_bytes(contents[:-1] + b"!")
    with pytest.raises(EncoderDigestError, match=name):
        find_encoder(MINILM_L6, copied_encoder)
