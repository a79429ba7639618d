"""A saved probe: what goes in comes out, every malformation has its own error, writing is all or nothing."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from numpy.testing import assert_array_equal
from safetensors.numpy import load as from_safetensors
from safetensors.numpy import save as to_safetensors

from probes import atomic_write as replace
from probes.artifacts import store as artifact
from probes.errors import (
    ArtifactDigestError,
    ArtifactError,
    ArtifactNotFoundError,
    ArtifactSchemaError,
    ArtifactSignatureError,
    ArtifactTruncatedError,
    ArtifactValueError,
    DataError,
    StatisticsNotFoundError,
)
from probes.probe import DifficultyProbe
from probes.regression.prior import Prior

MakeProbe = Callable[..., DifficultyProbe]


@pytest.fixture
def saved(tmp_path: Path, make_probe: MakeProbe) -> Path:
    artifact.save(make_probe(), tmp_path / "probe")
    return tmp_path / "probe"


def edit_json(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    document = json.loads((path / "probe.json").read_text())
    change(document)
    (path / "probe.json").write_text(json.dumps(document))


def edit_tensors(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change the tensors and make size and digest right again, as a careful forger would."""
    tensors = {
        name: array.copy() for name, array in from_safetensors((path / "probe.safetensors").read_bytes()).items()
    }
    change(tensors)
    raw = to_safetensors(tensors)
    (path / "probe.safetensors").write_bytes(raw)
    edit_json(path, lambda d: d["tensors"].update(sha256=hashlib.sha256(raw).hexdigest(), n_bytes=len(raw)))


@pytest.mark.parametrize("kind", ["isotonic", "sigmoid", "beta", "venn_abers"])
def test_a_loaded_probe_predicts_the_same_to_the_last_bit(
    tmp_path: Path, kind: str, make_probe: MakeProbe, world: Callable[..., Any]
) -> None:
    probe, X = make_probe(kind), world(seed=5)[0]
    artifact.save(probe, tmp_path / "a" / "probe")
    loaded = artifact.load(tmp_path / "a" / "probe")
    for name in ("loss", "risk", "leverage", "unfamiliar"):
        assert_array_equal(getattr(loaded.predict(X), name), getattr(probe.predict(X), name))
    assert_array_equal(loaded.fitted_on, probe.fitted_on)
    assert loaded.identity == probe.identity
    assert loaded.card == probe.card
    assert (loaded.models, loaded.encoder, loaded.leverage_limit) == (
        probe.models,
        probe.encoder,
        probe.leverage_limit,
    )


def test_a_probe_without_encoder_limit_and_calibration_comes_back(tmp_path: Path, make_probe: MakeProbe) -> None:
    bare = dataclasses.replace(make_probe(), encoder=None, encoder_identity="", leverage_limit=None, calibrators=())
    artifact.save(bare, tmp_path / "probe")
    loaded = artifact.load(tmp_path / "probe")
    assert loaded.identity == bare.identity
    assert (loaded.encoder, loaded.leverage_limit, loaded.calibrators) == (None, None, ())
    assert "none; features from elsewhere" in (tmp_path / "probe" / "README.md").read_text()


def test_the_directory_holds_data_and_a_card_for_people(saved: Path) -> None:
    assert sorted(file.name for file in saved.iterdir()) == ["README.md", "probe.json", "probe.safetensors"]
    card = (saved / "README.md").read_text()
    for fact in ("# A made-up probe", "| small | 300 |", "| apgr.value | 0.6 |", "ab" * 32, "00" * 32):
        assert fact in card
    document = json.loads((saved / "probe.json").read_text())
    raw = (saved / "probe.safetensors").read_bytes()
    assert document["tensors"] == {"sha256": hashlib.sha256(raw).hexdigest(), "n_bytes": len(raw)}


def test_loading_runs_no_pickle_and_imports_no_framework(saved: Path) -> None:
    code = (
        "import sys; from probes.artifacts import store; store.load(sys.argv[1]); "
        "print(sorted({'torch', 'sklearn', 'transformers', 'scipy', 'cryptography'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", code, str(saved)], capture_output=True, text=True, check=True)
    assert result.stdout == "[]\n"


def pop(*keys: str) -> Callable[[dict[str, Any]], object]:
    def change(document: dict[str, Any]) -> None:
        for key in keys[:-1]:
            document = document[key]
        document.pop(keys[-1])

    return change


def put(value: object, *keys: str) -> Callable[[dict[str, Any]], object]:
    def change(document: dict[str, Any]) -> None:
        for key in keys[:-1]:
            document = document[key]
        document[keys[-1]] = value

    return change


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


def test_saving_again_replaces_the_whole_artifact(saved: Path, make_probe: MakeProbe) -> None:
    other = make_probe("isotonic")
    artifact.save(other, saved)
    assert artifact.load(saved).identity == other.identity
    assert [file.name for file in saved.parent.iterdir()] == ["probe"]


def test_without_the_one_step_exchange_saving_again_still_replaces(
    saved: Path, make_probe: MakeProbe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replace, "_exchange", lambda a, b: False)
    other = make_probe("isotonic")
    artifact.save(other, saved)
    assert artifact.load(saved).identity == other.identity
    assert [file.name for file in saved.parent.iterdir()] == ["probe"]


def test_a_disk_that_fails_half_way_leaves_the_old_artifact(
    saved: Path, make_probe: MakeProbe, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = artifact.load(saved).identity
    synced: list[int] = []

    def failing(handle: int) -> None:
        synced.append(handle)
        if len(synced) == 2:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", failing)
    with pytest.raises(ArtifactError, match="No space left"):
        artifact.save(make_probe("isotonic"), saved)
    monkeypatch.undo()
    assert artifact.load(saved).identity == before
    assert [file.name for file in saved.parent.iterdir()] == ["probe"]


def test_a_directory_of_other_things_is_never_replaced(tmp_path: Path, make_probe: MakeProbe) -> None:
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(ArtifactError, match=r"it holds thesis.tex"):
        artifact.save(make_probe(), tmp_path)
    with pytest.raises(ArtifactError, match="must be a directory"):
        artifact.save(make_probe(), tmp_path / "thesis.tex")
    assert [file.name for file in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_card_that_is_no_json_is_refused_before_anything_is_written(tmp_path: Path, make_probe: MakeProbe) -> None:
    probe = make_probe()
    for metrics in ({"ece": float("nan")}, {"ece": np.float32(0.1)}, {"ece": object()}):
        card = dataclasses.replace(probe.card, metrics=metrics)
        with pytest.raises(DataError, match="plain, finite JSON"):
            artifact.save(dataclasses.replace(probe, card=card), tmp_path / "probe")
    assert list(tmp_path.iterdir()) == []


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


@pytest.fixture
def prior() -> Prior:
    rng = np.random.default_rng(3)
    Y = rng.random((40, 2))
    Y[:5, 1] = np.nan
    return Prior.of(rng.standard_normal((40, 8)), Y)


def test_statistics_come_back_to_the_last_bit_and_change_neither_identity_nor_loading(
    tmp_path: Path, make_probe: MakeProbe, prior: Prior
) -> None:
    artifact.save(make_probe(), tmp_path / "probe", prior)
    again = artifact.load_prior(tmp_path / "probe")
    assert again.tensors().keys() == prior.tensors().keys()
    for name, array in prior.tensors().items():
        assert_array_equal(again.tensors()[name], array)
    (tmp_path / "probe" / artifact.STATISTICS).unlink()
    assert artifact.load(tmp_path / "probe").identity == make_probe().identity
    with pytest.raises(ArtifactNotFoundError, match=r"statistics\.safetensors does not exist"):
        artifact.load_prior(tmp_path / "probe")


def test_a_probe_saved_without_statistics_says_how_to_get_them(saved: Path) -> None:
    with pytest.raises(StatisticsNotFoundError, match="--keep-statistics"):
        artifact.load_prior(saved)


def test_statistics_of_an_earlier_probe_do_not_survive_its_replacement(
    tmp_path: Path, make_probe: MakeProbe, prior: Prior
) -> None:
    artifact.save(make_probe(), tmp_path / "probe", prior)
    artifact.save(make_probe(), tmp_path / "probe")
    assert artifact.STATISTICS not in {file.name for file in (tmp_path / "probe").iterdir()}


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (lambda raw: raw[:-8], ArtifactTruncatedError),
        (lambda raw: raw[:-1] + bytes([raw[-1] ^ 1]), ArtifactDigestError),
    ],
)
def test_damaged_statistics_are_a_named_error(
    tmp_path: Path,
    make_probe: MakeProbe,
    prior: Prior,
    change: Callable[[bytes], bytes],
    error: type[Exception],
) -> None:
    artifact.save(make_probe(), tmp_path / "probe", prior)
    file = tmp_path / "probe" / artifact.STATISTICS
    file.write_bytes(change(file.read_bytes()))
    with pytest.raises(error):
        artifact.load_prior(tmp_path / "probe")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t["0.gram"].fill(np.inf), "must hold the statistics of a fit: gram"),
        (lambda t: t.clear() or t.update(Prior.of(np.eye(8), np.eye(8)[:, :1]).tensors()), "2 models; got 1"),
    ],
)
def test_forged_statistics_are_a_named_error_though_their_digest_is_right(
    tmp_path: Path, make_probe: MakeProbe, prior: Prior, change: Callable[[dict[str, Any]], object], message: str
) -> None:
    artifact.save(make_probe(), tmp_path / "probe", prior)
    file = tmp_path / "probe" / artifact.STATISTICS
    tensors = {name: array.copy() for name, array in from_safetensors(file.read_bytes()).items()}
    change(tensors)
    raw = to_safetensors(tensors)
    file.write_bytes(raw)
    edit_json(
        tmp_path / "probe",
        lambda d: d["statistics"].update(sha256=hashlib.sha256(raw).hexdigest(), n_bytes=len(raw)),
    )
    with pytest.raises(ArtifactValueError, match=message):
        artifact.load_prior(tmp_path / "probe")


def test_statistics_of_another_width_are_refused(tmp_path: Path, make_probe: MakeProbe) -> None:
    with pytest.raises(DataError, match="as many features"):
        artifact.save(make_probe(), tmp_path / "probe", Prior.of(np.eye(4), np.eye(4)[:, :2]))


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
