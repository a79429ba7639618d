"""The real encoder: known by its digests, alike alone and among others, and clear about what is missing."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from probes.encoder import (
    CONFIG_FILE,
    MINILM_L6,
    TOKENIZER_FILE,
    WEIGHTS_FILE,
    Encoder,
    EncoderSpec,
    encode_all,
    find_encoder,
    load_encoder,
    parse_spec,
)
from probes.errors import EncoderDigestError, EncoderError, EncoderNotFoundError


@pytest.fixture(scope="module")
def encoder(_real_encoder: None) -> Encoder:
    return load_encoder(MINILM_L6)


@pytest.fixture
def copied(tmp_path: Path, _real_encoder: None) -> Path:
    """A folder of our own with the encoder's files, the large one linked."""
    source = find_encoder(MINILM_L6)
    for name in (TOKENIZER_FILE, CONFIG_FILE):
        shutil.copy(source / name, tmp_path / name)
    (tmp_path / WEIGHTS_FILE).symlink_to(source / WEIGHTS_FILE)
    return tmp_path


class TestFeatures:
    def test_they_equal_transformers_own_hidden_states_pooled_by_hand(self, encoder: Encoder) -> None:
        import torch
        from transformers import AutoModel, BertTokenizer

        folder = find_encoder(MINILM_L6)
        text = "What is the derivative of x^2 sin(x)?"
        tokens = BertTokenizer(str(folder / "vocab.txt"))(text, return_tensors="pt")
        model = AutoModel.from_pretrained(folder, local_files_only=True).eval()
        with torch.no_grad():
            states = model(**tokens, output_hidden_states=True).hidden_states
        by_hand = torch.cat([states[3][0].mean(0), states[4][0].mean(0), states[3][0].amax(0)])
        np.testing.assert_allclose(encoder.encode(text), by_hand.numpy(), atol=2e-5)

    def test_a_text_has_the_same_features_alone_and_among_others(self, encoder: Encoder) -> None:
        texts = ["short", "a somewhat longer text " * 20, "x", "日本語の質問", "short"]
        together = encode_all(encoder, texts, workers=2)
        for text, features in zip(texts, together, strict=True):
            assert (encoder.encode(text) == features).all()

    def test_text_beyond_the_limit_is_not_read(self, encoder: Encoder) -> None:
        long = "word " * 300
        assert (encoder.encode(long) == encoder.encode(long + "something else entirely")).all()

    def test_layers_above_the_highest_one_read_change_nothing(self, encoder: Encoder) -> None:
        deeper = dataclasses.replace(MINILM_L6, pooling=("mean@3", "mean@6"))
        features = load_encoder(deeper).encode("hello")
        np.testing.assert_array_equal(features[:384], encoder.encode("hello")[:384])


class TestFinding:
    def test_a_named_folder_is_as_good_as_any_place(self, copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("ELLE_ENCODER_DIR", str(copied))
        assert find_encoder(MINILM_L6) == copied

    def test_the_hugging_face_cache_is_read_in_its_own_layout(
        self, copied: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        cache = tmp_path_factory.mktemp("hub")
        place = cache / "models--sentence-transformers--all-MiniLM-L6-v2" / "snapshots" / MINILM_L6.revision
        shutil.copytree(copied, place, symlinks=True)
        monkeypatch.setenv("HF_HUB_CACHE", str(cache))
        assert find_encoder(MINILM_L6) == place

    def test_missing_files_are_named_with_how_to_get_them(self, tmp_path: Path) -> None:
        with pytest.raises(EncoderNotFoundError) as caught:
            find_encoder(MINILM_L6, tmp_path)
        message = str(caught.value)
        assert str(tmp_path) in message
        assert f"hf download {MINILM_L6.model_id} --revision {MINILM_L6.revision}" in message

    @pytest.mark.parametrize("name", [WEIGHTS_FILE, TOKENIZER_FILE])
    def test_files_of_another_digest_are_refused(self, copied: Path, name: str) -> None:
        contents = (copied / name).read_bytes()
        (copied / name).unlink()
        (copied / name).write_bytes(contents[:-1] + b"!")
        with pytest.raises(EncoderDigestError, match=name):
            find_encoder(MINILM_L6, copied)


class TestSpec:
    def test_it_survives_json(self) -> None:
        assert EncoderSpec.from_dict(json.loads(json.dumps(MINILM_L6.to_dict()))) == MINILM_L6

    def test_identity_follows_what_moves_the_features_and_not_where_they_come_from(self) -> None:
        assert dataclasses.replace(MINILM_L6, revision="main").identity == MINILM_L6.identity
        assert dataclasses.replace(MINILM_L6, max_tokens=128).identity != MINILM_L6.identity
        assert dataclasses.replace(MINILM_L6, pooling=("mean@3",)).identity != MINILM_L6.identity

    @pytest.mark.parametrize(
        "change",
        [
            {"pooling": ()},
            {"pooling": ("mean@3", "mean@3")},
            {"pooling": ("median@3",)},
            {"pooling": ("mean@-1",)},
            {"max_tokens": 2},
            {"precision": "int3"},
            {"weights_sha256": "abc"},
        ],
    )
    def test_a_senseless_spec_is_refused(self, change: dict[str, object]) -> None:
        with pytest.raises(EncoderError, match=next(iter(change))):
            dataclasses.replace(MINILM_L6, **change)  # type: ignore[arg-type]

    def test_unknown_and_missing_fields_are_named(self) -> None:
        with pytest.raises(EncoderError, match="colour"):
            EncoderSpec.from_dict(MINILM_L6.to_dict() | {"colour": "blue"})
        with pytest.raises(EncoderError, match="incomplete"):
            EncoderSpec.from_dict({"model_id": "x"})

    def test_what_a_person_types_is_a_name_or_a_file(self, tmp_path: Path) -> None:
        path = tmp_path / "spec.json"
        path.write_text(json.dumps(MINILM_L6.to_dict()))
        assert parse_spec("minilm-l6") == parse_spec(str(path)) == MINILM_L6
        with pytest.raises(EncoderError, match="minilm-l6"):
            parse_spec("bert-huge")

    @pytest.mark.usefixtures("_real_encoder")
    def test_a_layer_the_model_does_not_have_is_refused(self) -> None:
        with pytest.raises(EncoderError, match="up to 6"):
            load_encoder(dataclasses.replace(MINILM_L6, pooling=("mean@7",)))
