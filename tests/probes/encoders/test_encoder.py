"""Which encoder: the spec, its identity, and what a person types."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from probes.encoders.spec import MINILM_L6, MINILM_L6_FLOAT32, EncoderSpec, parse_spec
from probes.errors import EncoderError


def test_it_survives_json() -> None:
    assert EncoderSpec.from_dict(json.loads(json.dumps(MINILM_L6.to_dict()))) == MINILM_L6


def test_identity_follows_what_moves_the_features_and_not_where_they_come_from() -> None:
    assert dataclasses.replace(MINILM_L6, revision="main").identity == MINILM_L6.identity
    for change in ({"max_tokens": 128}, {"pooling": ("mean@3",)}, {"precision": "float32"}, {"truncation": "head"}):
        assert dataclasses.replace(MINILM_L6, **change).identity != MINILM_L6.identity  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "change",
    [
        {"pooling": ()},
        {"pooling": ("mean@3", "mean@3")},
        {"pooling": ("median@3",)},
        {"pooling": ("mean@-1",)},
        {"max_tokens": 2},
        {"precision": "int3"},
        {"truncation": "tail"},
        {"weights_sha256": "abc"},
    ],
)
def test_a_senseless_spec_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(EncoderError, match=next(iter(change))):
        dataclasses.replace(MINILM_L6, **change)  # type: ignore[arg-type]


def test_unknown_and_missing_fields_are_named() -> None:
    with pytest.raises(EncoderError, match="colour"):
        EncoderSpec.from_dict(MINILM_L6.to_dict() | {"colour": "blue"})
    with pytest.raises(EncoderError, match="incomplete"):
        EncoderSpec.from_dict({"model_id": "x"})


def test_what_a_person_types_is_a_name_or_a_file(tmp_path: Path) -> None:
    path = tmp_path / "spec.json"
    path.write_text(json.dumps(MINILM_L6.to_dict()))
    assert parse_spec("minilm-l6") == parse_spec(str(path)) == MINILM_L6
    assert parse_spec("minilm-l6-float32") == MINILM_L6_FLOAT32
    with pytest.raises(EncoderError, match="minilm-l6"):
        parse_spec("bert-huge")
