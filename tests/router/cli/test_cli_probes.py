"""`elle` on embeddings: pairs to probe to scores to selections, from files only."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result

from router.cli.main import cli

N, D = 800, 12


def run(*arguments: object) -> Result:
    return CliRunner().invoke(cli, [str(argument) for argument in arguments])


def ran(*arguments: object) -> str:
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Embeddings whose first coordinate is their loss, and a probe fitted on half of them."""
    rng = np.random.default_rng(0)
    embeddings = rng.standard_normal((N, D)).astype(np.float32)
    losses = embeddings[:, 0] + 0.1 * rng.standard_normal(N)
    np.save(tmp_path / "all.npy", embeddings)
    np.savez(tmp_path / "pairs.npz", embedding=embeddings[:400], loss=losses[:400])
    assert "r = 0.99" in ran("fit-pairs", tmp_path / "pairs.npz", "--out", tmp_path / "probe")
    said = ran("score", tmp_path / "all.npy", "--probe", tmp_path / "probe", "--out", tmp_path / "s.parquet", "--json")
    columns = ["row", "loss", "leverage"]
    wanted = {"rows": N, "resumed_rows": 0, "columns": columns, "bad_rows": 0, "bad_rows_file": None}
    assert json.loads(said).items() >= wanted.items()
    return tmp_path


def first_coordinates(folder: Path, selected: str) -> np.ndarray:
    rows = pq.read_table(folder / selected)["row"].to_numpy()
    return np.load(folder / "all.npy")[rows, 0]


def test_pairs_that_are_no_numbers_are_left_out_of_the_fit_and_named(folder: Path) -> None:
    pairs = dict(np.load(folder / "pairs.npz"))
    pairs["loss"][5] = np.inf
    pairs["embedding"][9, 2] = np.nan
    np.savez(folder / "odd.npz", **pairs)
    result = run("fit-pairs", folder / "odd.npz", "--out", folder / "odd")
    assert result.exit_code == 3
    assert "2 pairs hold NaN or infinity and are left out: rows 5, 9." in result.stderr
    assert "r = 0.99" in result.stdout
    assert "398" in (folder / "odd" / "README.md").read_text()


def test_scores_follow_the_loss(folder: Path) -> None:
    table = pq.read_table(folder / "s.parquet")
    assert np.corrcoef(table["loss"].to_numpy(), np.load(folder / "all.npy")[:, 0])[0, 1] > 0.99
    assert (table["row"].to_numpy() == np.arange(N)).all()


def test_rows_that_cannot_be_scored_are_listed_and_the_exit_status_says_so(folder: Path) -> None:
    embeddings = np.load(folder / "all.npy")
    embeddings[7, 3] = np.nan
    np.save(folder / "odd.npy", embeddings)
    result = run("score", folder / "odd.npy", "--probe", folder / "probe", "--out", folder / "odd.parquet")
    assert result.exit_code == 3
    assert "1 of the rows have no score" in result.stderr
    assert (folder / "odd.parquet.bad-rows.csv").read_text().splitlines()[1].startswith("7,")
    scores = pq.read_table(folder / "odd.parquet")["loss"].to_numpy()
    assert np.flatnonzero(np.isnan(scores)).tolist() == [7]


def test_a_call_that_failed_does_not_refuse_the_right_one(folder: Path) -> None:
    np.save(folder / "narrow.npy", np.zeros((5, 3), dtype=np.float32))
    out = ("--probe", folder / "probe", "--out", folder / "x.parquet")
    assert run("score", folder / "narrow.npy", *out).exit_code == 1
    ran("score", folder / "all.npy", *out)
    assert not list(folder.glob("*.partial"))


def test_keep_drops_both_ends(folder: Path) -> None:
    ran(
        "select",
        "keep",
        folder / "s.parquet",
        "--drop-easiest",
        0.25,
        "--drop-hardest",
        0.25,
        "--out",
        folder / "k.parquet",
    )
    kept = first_coordinates(folder, "k.parquet")
    assert len(kept) == N // 2
    assert np.abs(kept).max() < 1.0


def test_stratified_covers_the_range_evenly(folder: Path) -> None:
    said = ran("select", "stratified", folder / "s.parquet", "--count", 100, "--out", folder / "t.parquet", "--json")
    wanted = {"out": str(folder / "t.parquet"), "rows": 100, "columns": ["row", "score"]}
    assert json.loads(said).items() >= wanted.items()
    chosen = first_coordinates(folder, "t.parquet")
    assert len(chosen) == 100
    assert 45 <= (chosen > np.median(np.load(folder / "all.npy")[:, 0])).sum() <= 55


def test_suspicious_takes_the_hard_end(folder: Path) -> None:
    ran("select", "suspicious", folder / "s.parquet", "--share", 0.1, "--out", folder / "q.parquet")
    assert first_coordinates(folder, "q.parquet").min() > 1.0


def test_labels_are_drawn_at_random_unless_a_rule_is_named(folder: Path) -> None:
    for count in (20, 50):
        ran("select", "label", folder / "all.npy", "--count", count, "--seed", 3, "--out", folder / f"{count}.parquet")
    few, more = (pq.read_table(folder / f"{count}.parquet")["row"].to_pylist() for count in (20, 50))
    assert more[:20] == few, "a larger draw begins with the smaller one"
    assert len(set(more)) == 50
    exclude = ("--exclude", folder / "50.parquet")
    ran("select", "label", folder / "all.npy", "--count", 700, *exclude, "--out", folder / "rest.parquet")
    assert not set(more) & set(pq.read_table(folder / "rest.parquet")["row"].to_pylist())


def test_d_optimal_prefers_what_is_worth_more(folder: Path) -> None:
    ran(
        *("select", "label", folder / "all.npy", "--count", 20, "--gain", folder / "s.parquet", "--rule", "d-optimal"),
        *("--labelled", folder / "pairs.npz", "--out", folder / "l.parquet"),
    )
    table = pq.read_table(folder / "l.parquet")
    assert len(set(table["row"].to_pylist())) == 20
    assert first_coordinates(folder, "l.parquet").mean() > 1.0


def test_herding_chooses_within_the_pool(folder: Path) -> None:
    given = ("--count", 40, "--rule", "herding", "--pool", 100)
    ran("select", "label", folder / "all.npy", *given, "--out", folder / "h.parquet")
    ran("select", "label", folder / "all.npy", "--count", 100, "--out", folder / "pool.parquet")
    chosen, pool = (set(pq.read_table(folder / name)["row"].to_pylist()) for name in ("h.parquet", "pool.parquet"))
    assert len(chosen) == 40
    assert chosen < pool


def test_rows_without_a_score_are_left_out_of_every_selection_and_counted(folder: Path) -> None:
    embeddings = np.load(folder / "all.npy")
    embeddings[[3, 4], 0] = np.nan
    np.save(folder / "odd.npy", embeddings)
    scored = ("--probe", folder / "probe", "--out", folder / "odd.parquet")
    assert run("score", folder / "odd.npy", *scored).exit_code == 3
    for words in (("keep",), ("stratified", "--count", "798"), ("suspicious", "--share", "0.5")):
        out = folder / f"{words[0]}.parquet"
        result = run("select", words[0], folder / "odd.parquet", *words[1:], "--out", out)
        assert result.exit_code == 0, result.output
        assert "2 rows" in result.stderr
        assert not {3, 4} & set(pq.read_table(out)["row"].to_pylist())
    given = ("--deviations", 3, "--out", folder / "change.parquet")
    result = run("select", "change", folder / "s.parquet", folder / "odd.parquet", *given)
    # Nothing changed but for the two rows, so there is no spread to measure by.
    assert "no usual spread" in result.stderr
    result = run("select", "label", folder / "odd.npy", "--count", 798, "--out", folder / "label.parquet")
    assert result.exit_code == 0
    assert "2 rows hold NaN" in result.stderr
    worth = ("--rule", "d-optimal", "--gain", folder / "odd.parquet", "--out", folder / "gain.parquet")
    ran("select", "label", folder / "all.npy", "--count", 50, *worth)
    assert not {3, 4} & set(pq.read_table(folder / "gain.parquet")["row"].to_pylist())


def test_change_finds_what_changed(folder: Path) -> None:
    later = np.load(folder / "all.npy") + 0.01 * np.random.default_rng(1).standard_normal((N, D)).astype(np.float32)
    later[:5, 0] += 3
    np.save(folder / "later.npy", later)
    ran("score", folder / "later.npy", "--probe", folder / "probe", "--out", folder / "s2.parquet")
    ran(
        "select",
        "change",
        folder / "s.parquet",
        folder / "s2.parquet",
        "--deviations",
        10,
        "--out",
        folder / "c.parquet",
    )
    assert pq.read_table(folder / "c.parquet")["row"].to_pylist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("score", "all.npy", "--probe", "nowhere", "--out", "x.parquet"), "does not exist"),
        (("score", "all.npy", "--probe", "probe", "--out", "s.parquet"), "give --force"),
        (("score", "narrow.npy", "--probe", "probe", "--out", "x.parquet"), "12"),
        (("select", "keep", "s.parquet", "--out", "s.parquet"), "give --force"),
        (("select", "keep", "s.parquet", "--column", "nope", "--out", "x.parquet"), "nope"),
        (("select", "keep", "two.parquet", "--out", "x.parquet"), "name one, as with --column: loss_a, loss_b"),
        (("select", "suspicious", "s.parquet", "--out", "x.parquet"), "either deviations or share"),
        (("select", "keep", "s.parquet", "--column", "leverag", "--out", "x.parquet"), "Did you mean leverage?"),
        (
            ("select", "suspicious", "s.parquet", "--share", "01", "--out", "x.parquet"),
            "Error: share must be a share in",
        ),
        (
            ("select", "label", "all.npy", "--count", "1", "--exclude", "ss.parquet", "--out", "x.parquet"),
            "at ss.parquet: it does not exist, but s.parquet does.",
        ),
        (("select", "stratified", "s.parquet", "--count", "801", "--out", "x.parquet"), "between 1 and the 800"),
        (("select", "label", "all.npy", "--count", "801", "--out", "x.parquet"), "at most the 800 rows"),
        (("select", "label", "all.npy", "--count", "1", "--exclude", "all.npy", "--out", "x.parquet"), "parquet file"),
        (("select", "change", "s.parquet", "s3.parquet", "--out", "x.parquet"), "no file of scores"),
        (("fit-pairs", "few.npz", "--out", "x"), "at least 50 pairs, got 10"),
        (("fit-pairs", "all.npy", "--out", "x"), "pairs must come from"),
    ],
)
def test_what_is_wrong_is_said_and_nothing_is_written(
    folder: Path, arguments: tuple[str, ...], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    np.save("narrow.npy", np.zeros((5, 3), dtype=np.float32))
    pq.write_table(pa.table({"row": [0, 1], "loss_a": [0.1, 0.2], "loss_b": [0.2, 0.1]}), "two.parquet")
    np.savez("few.npz", embedding=np.random.default_rng(0).standard_normal((10, 3)), loss=np.arange(10.0))
    result = run(*arguments)
    assert result.exit_code == 1
    assert message in result.stderr
    assert not Path("x.parquet").exists()
    assert not Path("x").exists()
