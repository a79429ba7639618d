"""Tests of saved probes that are damaged, forged or edited: each malformation has its own error."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from probes.artifacts import store as artifact
from probes.errors import (
    ArtifactDigestError,
    ArtifactError,
    ArtifactNotFoundError,
    ArtifactSchemaError,
    ArtifactTruncatedError,
    ArtifactValueError,
)
from tests.probes.artifacts.edits import edit_json, edit_tensors, pop, put


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (put(2, "schema_number"), ArtifactSchemaError, "schema_number 1; got 2"),
        (put(True, "schema_number"), ArtifactSchemaError, "schema_number 1; got True"),
        (pop("schema_number"), ArtifactSchemaError, "got None"),
        (pop("models"), ArtifactSchemaError, "field models"),
        (put("small", "models"), ArtifactSchemaError, "field models"),
        (put(1, "surprise"), ArtifactSchemaError, "field surprise"),
        (pop("card", "title"), ArtifactSchemaError, "field card.title"),
        (put("0.1", "leverage_limit"), ArtifactSchemaError, "field leverage_limit"),
        (put(["cosine", "beta"], "calibration"), ArtifactSchemaError, "every calibration must be one of"),
        (put(["isotonic", "beta"], "calibration"), ArtifactSchemaError, "must have the tensors"),
        (put(["beta"], "calibration"), ArtifactSchemaError, "unknown tensor 'calibration.1"),
        (put(["a"], "models"), ArtifactValueError, "2 different names"),
        (put(-1.0, "leverage_limit"), ArtifactValueError, "leverage_limit"),
        (put(float("nan"), "leverage_limit"), ArtifactValueError, "finite numbers; got NaN"),
        (put(["large", "small"], "models"), ArtifactDigestError, "edited"),
        (put("00" * 32, "tensors", "sha256"), ArtifactDigestError, "SHA-256"),
    ],
)
def test_an_edited_document_is_a_named_error(
    saved: Path, change: Callable[[dict[str, Any]], object], error: type[Exception], message: str
) -> None:
    edit_json(saved, change)
    with pytest.raises(error, match=message) as caught:
        artifact.load(saved)
    assert type(caught.value) is error


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda t: t["linear.coef"].__setitem__((0, 0), np.nan), ArtifactValueError, "coef must be finite"),
        (lambda t: t["leverage.mean"].fill(np.inf), ArtifactValueError, "mean must be finite"),
        (lambda t: t["calibration.0.parameters"].fill(np.nan), ArtifactValueError, "finite numbers"),
        (
            lambda t: t.update({"linear.intercept": np.zeros(3, np.float32)}),
            ArtifactValueError,
            "number of targets",
        ),
        (
            lambda t: t.update({"linear.coef": np.zeros((2, 7), np.float32)}),
            ArtifactValueError,
            "number of features",
        ),
        (
            lambda t: t.update({"linear.coef": np.zeros(2, np.float32)}),
            ArtifactValueError,
            r"2 dimension\(s\)",
        ),
        (lambda t: t.update({"leverage.scalars": np.zeros(2)}), ArtifactValueError, "leverage.scalars"),
        (
            lambda t: t.update({"calibration.1.parameters": np.zeros(2)}),
            ArtifactValueError,
            "five parameters",
        ),
        (
            lambda t: t.update({"linear.coef": np.zeros((2, 8))}),
            ArtifactSchemaError,
            "must be float32; got float64",
        ),
        (lambda t: t.update(fitted_on=np.zeros(3)), ArtifactSchemaError, "must be uint64; got float64"),
        (lambda t: t.update(fitted_on=np.zeros((3, 1), np.uint64)), ArtifactValueError, "fitted_on"),
        (lambda t: t.pop("linear.alpha"), ArtifactSchemaError, "must hold linear.alpha"),
        (lambda t: t.update(extra=np.zeros(1)), ArtifactSchemaError, "unknown tensor 'extra'"),
        (lambda t: t["linear.coef"].__imul__(2.0), ArtifactDigestError, "edited"),
    ],
)
def test_forged_tensors_are_a_named_error_though_their_digest_is_right(
    saved: Path, change: Callable[[dict[str, Any]], object], error: type[Exception], message: str
) -> None:
    edit_tensors(saved, change)
    with pytest.raises(error, match=message) as caught:
        artifact.load(saved)
    assert type(caught.value) is error


@pytest.mark.parametrize("file", ["probe.json", "probe.safetensors"])
@pytest.mark.parametrize("keep", [0.0, 0.3, 0.999])
def test_a_truncated_file_is_an_error_of_its_own(saved: Path, file: str, keep: float) -> None:
    raw = (saved / file).read_bytes()
    (saved / file).write_bytes(raw[: int(keep * (len(raw) - 2))])
    with pytest.raises(ArtifactTruncatedError):
        artifact.load(saved)


def test_one_flipped_bit_is_a_digest_error(saved: Path) -> None:
    raw = bytearray((saved / "probe.safetensors").read_bytes())
    raw[-5] ^= 1
    (saved / "probe.safetensors").write_bytes(raw)
    with pytest.raises(ArtifactDigestError, match="must have SHA-256"):
        artifact.load(saved)


def test_a_file_that_is_no_safetensors_is_an_error_even_with_the_right_digest(saved: Path) -> None:
    raw = b"\xff" * 400
    (saved / "probe.safetensors").write_bytes(raw)
    edit_json(saved, lambda d: d["tensors"].update(sha256=hashlib.sha256(raw).hexdigest(), n_bytes=len(raw)))
    with pytest.raises(ArtifactTruncatedError, match="must be a safetensors file"):
        artifact.load(saved)


@pytest.mark.parametrize("content", [b"\xff\xfe", b"[1, 2]", b"null", b"[" * 100_000])
def test_a_document_that_is_no_object_is_an_artifact_error(saved: Path, content: bytes) -> None:
    (saved / "probe.json").write_bytes(content)
    with pytest.raises((ArtifactTruncatedError, ArtifactSchemaError)):
        artifact.load(saved)


@pytest.mark.parametrize("file", ["probe.json", "probe.safetensors"])
def test_a_missing_file_is_not_found(saved: Path, file: str) -> None:
    (saved / file).unlink()
    with pytest.raises(ArtifactNotFoundError, match=file):
        artifact.load(saved)
    with pytest.raises(FileNotFoundError):
        artifact.load(saved / "nowhere")


def leaves(value: Any, *path: str) -> Any:
    """Every place in nested JSON that holds no object."""
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
        if isinstance(inner, dict) or (isinstance(inner, list) and inner and isinstance(inner[0], dict)):
            yield from leaves(inner, *path, key)
        else:
            yield (*path, key)


def other(value: Any) -> Any:
    if isinstance(value, list):
        return [*value, "more"]
    return f"{value}b" if isinstance(value, str) else 7 if value is None else value + 1


def test_an_edit_of_any_field_of_the_document_is_refused(saved: Path) -> None:
    """Found in the file, so that a new field cannot be forgotten: figures, sources, versions, title and all."""
    text = (saved / "probe.json").read_text()
    places = list(leaves(json.loads(text)))
    assert ("card", "metrics", "apgr", "value") in places
    assert len(places) > 20
    for place in places:
        edit_json(saved, lambda d, place=place: put(other(_at(d, place)), *place)(d))
        with pytest.raises(ArtifactError):
            artifact.load(saved)
        (saved / "probe.json").write_text(text)
    artifact.load(saved)


def _at(document: Any, place: tuple[Any, ...]) -> Any:
    for key in place:
        document = document[key]
    return document


def test_an_edit_of_a_figure_says_what_was_edited(saved: Path) -> None:
    edit_json(saved, put(0.99, "card", "metrics", "apgr", "value"))
    with pytest.raises(ArtifactDigestError, match=r"card's figures, sources or versions, was edited"):
        artifact.load(saved)


def test_an_edit_of_the_card_for_people_is_refused_and_a_card_that_is_gone_is_not(saved: Path) -> None:
    card = saved / "README.md"
    card.write_text(card.read_text().replace("| apgr.value | 0.6 |", "| apgr.value | 0.9 |"))
    with pytest.raises(ArtifactDigestError, match=r"must be the model card that was written.*or remove the file"):
        artifact.load(saved)
    card.unlink()
    artifact.load(saved)


def test_a_probe_of_an_earlier_version_loads_with_a_warning(saved: Path, caplog: pytest.LogCaptureFixture) -> None:
    edit_json(saved, pop("digest"))
    edit_json(saved, pop("readme_sha256"))
    artifact.load(saved)
    assert "nothing shows whether the figures of its card were edited" in caplog.text


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"n_rows": 300', '"n_rows": ' + "9" * 5000, r"64 bits at most, got 9{60}\.\.\. \(5,000 characters\)"),
        ('"n_rows": 300', '"n_rows": 9223372036854775808', "64 bits at most, got 9223372036854775808"),
        ('"apgr": {', '"big": 1e400, "apgr": {', "finite numbers; got 1e400"),
        ('"apgr": {', '"deep": ' + "[" * 80 + "]" * 80 + ', "apgr": {', "more than 64 levels deep"),
        ('"A made-up probe"', '"half \\ud800"', "a lone surrogate at 5 of a text"),
    ],
)
def test_numbers_depth_and_text_of_the_document_are_bounded(saved: Path, old: str, new: str, message: str) -> None:
    document = (saved / "probe.json").read_text("utf-8")
    assert old in document
    (saved / "probe.json").write_text(document.replace(old, new), "utf-8")
    with pytest.raises(ArtifactValueError, match=message):
        artifact.load(saved)


def test_no_more_is_read_than_the_document_says(saved: Path) -> None:
    with (saved / "probe.safetensors").open("r+b") as file:
        file.truncate(1 << 40)
    with pytest.raises(ArtifactError, match="at most"):
        artifact.load(saved)
    document = json.loads((saved / "probe.json").read_text("utf-8"))
    document["tensors"]["n_bytes"] = 1 << 40
    (saved / "probe.json").write_text(json.dumps(document), "utf-8")
    with pytest.raises(ArtifactSchemaError, match="described with"):
        artifact.load(saved)
