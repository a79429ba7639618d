"""`elle embed`: prompts to an embedding file that score and select read, as the service would encode them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result

from probes.embeddings.files import open_embeddings
from router.cli.main import cli
from router.tuning.outcomes import prompt_embeddings
from tests.fakes import FakeEncoder, fake_probe


def run(*arguments: object) -> Result:
    return CliRunner().invoke(cli, [str(argument) for argument in arguments])


@pytest.fixture(autouse=True)
def _fake_encoder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prompt_embeddings, "load_encoder", lambda spec, directory=None: FakeEncoder(spec))
    monkeypatch.setattr(prompt_embeddings, "_ROWS", 3)


def embeddings(path: Path) -> np.ndarray:
    file = open_embeddings(path)
    return np.concatenate(list(file.blocks(0, 2)))


@pytest.mark.parametrize("ending", [".npy", ".parquet"])
def test_each_line_is_a_prompt_and_each_prompt_a_row(tmp_path: Path, ending: str) -> None:
    prompts = ["one", "two\u2028with a sign that ends no line", "one", "three", "four"]
    (tmp_path / "p.txt").write_text("\r\n".join(prompts) + "\n", "utf-8", newline="")
    out = tmp_path / f"e{ending}"
    result = run("embed", tmp_path / "p.txt", "--out", out, "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["rows"] == 5
    assert (embeddings(out) == np.stack([FakeEncoder().encode(prompt) for prompt in prompts])).all()
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(["p.txt", out.name])


@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
def test_every_usual_line_end_ends_a_prompt(tmp_path: Path, line_end: str) -> None:
    (tmp_path / "p.txt").write_text(line_end.join(["one", "two", "three", ""]), "utf-8", newline="")
    result = run("embed", tmp_path / "p.txt", "--out", tmp_path / "e.npy", "--json")
    assert json.loads(result.stdout)["rows"] == 3
    assert (embeddings(tmp_path / "e.npy")[1] == FakeEncoder().encode("two")).all()


def test_rows_without_a_prompt_get_none_and_are_listed(tmp_path: Path) -> None:
    chat = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "asked in a chat"}]
    rows = [
        {"prompt": "plain", "prompt_id": "a"},
        {"messages": chat, "prompt_id": "b"},
        {"prompt": "  "},
        {"prompt": 7},
    ]
    lines = [*map(json.dumps, rows), "no JSON", json.dumps({"prompt": "last", "prompt_id": "c"})]
    (tmp_path / "p.jsonl").write_text("\n".join(lines), "utf-8")
    out = tmp_path / "e.parquet"
    result = run("embed", tmp_path / "p.jsonl", "--out", out)
    assert result.exit_code == 3
    assert "3 of the rows hold no prompt" in result.stderr
    table = pq.read_table(out)
    assert table["prompt_id"].to_pylist() == ["a", "b", None, None, None, "c"]
    found = embeddings(out)
    assert np.flatnonzero(np.isnan(found).any(axis=1)).tolist() == [2, 3, 4]
    assert (found[1] == FakeEncoder().encode("asked in a chat")).all()
    listed = (tmp_path / "e.parquet.bad-rows.csv").read_text("utf-8").splitlines()
    assert [line.split(",")[0] for line in listed] == ["row", "2", "3", "4"]
    assert "line 5" in listed[3]


def test_the_encoder_may_be_that_of_a_probe(tmp_path: Path) -> None:
    from probes.artifacts import store as artifact

    artifact.save(fake_probe(), tmp_path / "probe")
    (tmp_path / "p.txt").write_text("one\n")
    given = ("--out", tmp_path / "e.npy", "--probe", tmp_path / "probe", "--json")
    found = json.loads(run("embed", tmp_path / "p.txt", *given).stdout)
    assert found["encoder"] == fake_probe().encoder_identity


def test_an_encoder_that_this_machine_does_not_compute_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prompt_embeddings, "load_encoder", lambda spec, directory=None: FakeEncoder())
    (tmp_path / "p.txt").write_text("one\n")
    result = run("embed", tmp_path / "p.txt", "--out", tmp_path / "e.npy")
    assert result.exit_code == 1
    assert "this machine computes" in result.stderr


def test_a_failed_call_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "p.txt").write_text("one\ntwo\nthree\nmake the encoder raise\n")
    result = run("embed", tmp_path / "p.txt", "--out", tmp_path / "e.npy")
    assert result.exit_code != 0
    assert [path.name for path in tmp_path.iterdir()] == ["p.txt"]


@pytest.mark.parametrize(
    ("name", "content", "out", "message"),
    [
        ("p.txt", "one", "e.csv", "must end in .npy or .parquet"),
        ("p.txt", "", "e.npy", "must hold prompts"),
        ("p.txt", " \n", "e.npy", "must hold prompts"),
        ("p.bin", "one", "e.npy", "must end in"),
    ],
)
def test_what_cannot_be_embedded_is_said(tmp_path: Path, name: str, content: str, out: str, message: str) -> None:
    (tmp_path / name).write_text(content)
    result = run("embed", tmp_path / name, "--out", tmp_path / out)
    assert result.exit_code == 1
    assert message in result.stderr
    assert not (tmp_path / out).exists()


def test_prompts_are_scored_as_their_embeddings_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from probes.artifacts import store as artifact

    monkeypatch.setattr(prompt_embeddings, "SHARD_OF_PROMPTS", 3)
    artifact.save(fake_probe(), tmp_path / "probe")
    rows = [{"prompt": f"prompt {n}"} for n in range(10)] + [{"prompt": " "}]
    (tmp_path / "p.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert run("embed", tmp_path / "p.jsonl", "--probe", tmp_path / "probe", "--out", tmp_path / "e.npy").exit_code == 3
    for source, out in (("p.jsonl", "prompts.parquet"), ("e.npy", "embeddings.parquet")):
        result = run("score", tmp_path / source, "--probe", tmp_path / "probe", "--out", tmp_path / out)
        assert result.exit_code == 3, result.output
    ours, theirs = (pq.read_table(tmp_path / name) for name in ("prompts.parquet", "embeddings.parquet"))
    assert ours.column_names == theirs.column_names
    for name in ours.column_names:
        np.testing.assert_allclose(ours[name], theirs[name], rtol=1e-6)
    assert len(ours) == 11


@pytest.mark.parametrize(("columns", "prompts"), [(("row", "prompt"), True), (("prompt", "embedding"), False)])
def test_a_parquet_file_holds_prompts_if_it_has_no_embeddings(
    tmp_path: Path, columns: tuple[str, ...], prompts: bool
) -> None:
    import pyarrow as pa

    pq.write_table(pa.table({name: ["x"] for name in columns}), tmp_path / "some.parquet")
    assert prompt_embeddings.holds_prompts(tmp_path / "some.parquet") == prompts
    assert not prompt_embeddings.holds_prompts(tmp_path / "none.parquet")
