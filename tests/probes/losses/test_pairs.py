"""`LossPairs`, files of precomputed pairs, and routing losses."""

from __future__ import annotations

import numpy as np
import pytest

from probes.errors import DataError, DimensionError
from probes.losses import (
    LossPairs,
    completion_token_loss,
    judge_losses,
    losses_from_scores,
    read_pairs,
    routing_pairs,
    token_losses,
    write_pairs,
)

X = np.arange(12, dtype=np.float32).reshape(4, 3)
Y = np.array([0.5, 1.0, 0.0, 2.5])


def test_pairs_are_typed_read_only_and_counted():
    pairs = LossPairs(X.tolist(), Y.tolist(), ["a", "b", "c", "d"], {"objective": "test"})
    assert (pairs.embeddings.dtype, pairs.losses.dtype, len(pairs)) == (np.float32, np.float64, 4)
    with pytest.raises(ValueError, match="read-only"):
        pairs.losses[0] = 1
    with pytest.raises(TypeError):
        pairs.provenance["objective"] = "other"
    assert pairs.ids == ("a", "b", "c", "d")


def test_the_array_handed_in_stays_writable_and_the_pairs_stay_as_they_are():
    mine = X.copy()
    pairs = LossPairs(mine, Y)
    mine[0, 0] = 9.0
    assert pairs.embeddings[0, 0] == X[0, 0]


@pytest.mark.parametrize(
    ("embeddings", "losses", "ids", "error", "message"),
    [
        (X, Y[:3], None, DimensionError, r"losses must have shape \(4,\)"),
        (X[0], Y, None, DimensionError, r"embeddings must have shape \(n, d\)"),
        (X, Y, ("a",), DimensionError, "each of the 4 samples, got 1"),
        (X[:0], Y[:0], None, DataError, "at least one"),
        (np.where(X == 7, np.nan, X), Y, None, DataError, "embedding of sample 2 must be finite"),
        (X, np.where(Y == 1, np.inf, Y), None, DataError, "loss of sample 1 must be finite"),
        (X.astype(str), Y, None, DataError, "real numbers"),
    ],
)
def test_pairs_that_cannot_be_are_refused(embeddings, losses, ids, error, message):
    with pytest.raises(error, match=message):
        LossPairs(embeddings, losses, ids)


def save(path, kind, embedding=X, loss=Y, ids=("a", "b", "c", "d")):
    if path.suffix == ".npz":
        np.savez(path, embedding=embedding, loss=loss, id=np.array(ids))
    elif path.suffix == ".safetensors":
        from safetensors.numpy import save_file

        save_file({"embedding": np.ascontiguousarray(embedding), "loss": np.ascontiguousarray(loss)}, path)
    else:
        pa = pytest.importorskip("pyarrow")
        import pyarrow.parquet as pq

        flat = pa.array(embedding.ravel())
        column = {
            "fixed": lambda: pa.FixedSizeListArray.from_arrays(flat, embedding.shape[1]),
            "list": lambda: pa.array(embedding.tolist()),
        }[kind]()
        pq.write_table(pa.table({"embedding": column, "loss": loss, "id": list(ids)}), path)


@pytest.mark.parametrize("ending", [".npz", ".safetensors", ".parquet:fixed", ".parquet:list"])
def test_pairs_are_read_from_every_kind_of_file(tmp_path, ending):
    ending, _, kind = ending.partition(":")
    path = tmp_path / f"pairs{ending}"
    save(path, kind)
    pairs = read_pairs(path, ids=None if ending == ".safetensors" else "id")
    np.testing.assert_array_equal(pairs.embeddings, X)
    np.testing.assert_array_equal(pairs.losses, Y)
    assert pairs.ids == (None if ending == ".safetensors" else ("a", "b", "c", "d"))
    assert pairs.provenance == {"objective": "precomputed", "file": path.name}
    with pytest.raises(DataError, match=r"must hold \['nope'\]"):
        read_pairs(path, loss="nope")


@pytest.mark.parametrize("ending", [".npz", ".safetensors", ".parquet"])
def test_a_file_that_is_not_what_its_name_says_is_an_error(tmp_path, ending):
    if ending == ".parquet":
        pytest.importorskip("pyarrow")
    path = tmp_path / f"pairs{ending}"
    path.write_bytes(b"\x00 nothing of the kind")
    with pytest.raises(DataError, match=f"pairs{ending} must"):
        read_pairs(path)


def test_an_npz_of_pickles_is_not_opened(tmp_path):
    path = tmp_path / "pairs.npz"
    np.savez(path, embedding=np.array([{"a": 1}], dtype=object), loss=Y)
    with pytest.raises(DataError, match="plain numeric"):
        read_pairs(path)


def test_ragged_or_missing_lists_are_named(tmp_path):
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    path = tmp_path / "pairs.parquet"
    pq.write_table(pa.table({"embedding": [[1.0, 2.0], [3.0, 4.0], [5.0, 6.0, 7.0]], "loss": [1.0, 2.0, 3.0]}), path)
    with pytest.raises(DataError, match=r"one length, got 2 and 3 \(row 2\)"):
        read_pairs(path)
    pq.write_table(pa.table({"embedding": [[1.0, 2.0], None], "loss": [1.0, 2.0]}), path)
    with pytest.raises(DataError, match="no missing values, got 1"):
        read_pairs(path)


def test_missing_files_and_unknown_endings_are_named(tmp_path):
    with pytest.raises(DataError, match="no file of pairs"):
        read_pairs(tmp_path / "none.npz")
    (tmp_path / "pairs.pt").touch()
    with pytest.raises(DataError, match=r"convert .pt files first"):
        read_pairs(tmp_path / "pairs.pt")


def test_written_pairs_come_back(tmp_path):
    write_pairs(LossPairs(X, Y, ("a", "b", "c", "d"), {"seed": 3}), tmp_path / "pairs.npz")
    again = read_pairs(tmp_path / "pairs.npz", ids="id")
    np.testing.assert_array_equal(again.losses, Y)
    assert again.ids == ("a", "b", "c", "d")
    assert [file.name for file in tmp_path.iterdir()] == ["pairs.npz"]
    with pytest.raises(DataError, match=r"written as \.npz"):
        write_pairs(again, tmp_path / "pairs.parquet")


def test_loss_is_one_minus_score():
    np.testing.assert_allclose(losses_from_scores([[1.0, 0.25], [0.0, 0.5]]), [[0.0, 0.75], [1.0, 0.5]])
    for bad in (1.5, -0.1, np.nan):
        with pytest.raises(DataError, match=r"scores must lie in \[0, 1\], got .* at \(1,\)"):
            losses_from_scores([0.5, bad])


def test_the_judges_loser_pays():
    np.testing.assert_array_equal(judge_losses(["a", "b", "tie"]), [[0, 1], [1, 0], [0.5, 0.5]])
    assert judge_losses(["tie"], tie=0.0).tolist() == [[0.0, 0.0]]
    assert judge_losses([]).shape == (0, 2)
    with pytest.raises(DataError, match=r"verdict of row 1 must be 'a', 'b' or 'tie', got 'A'"):
        judge_losses(["a", "A"])
    with pytest.raises(DataError, match="loss of a tie"):
        judge_losses(["a"], tie=2)


def test_token_losses_are_nats_per_token():
    np.testing.assert_allclose(token_losses([[-1.0, -3.0], [np.log(0.5)]]), [2.0, np.log(2)])
    with pytest.raises(DataError, match="row 1 must have at least one"):
        token_losses([[-1.0], []])
    for bad in (0.5, np.nan, -np.inf):
        with pytest.raises(DataError, match="of row 0 must be finite and at most 0"):
            token_losses([[bad]])


def test_an_openai_completion_gives_its_token_loss():
    body = {"choices": [{"logprobs": {"content": [{"logprob": -0.5}, {"logprob": -1.5}]}}]}
    assert completion_token_loss(body) == 1.0
    for bad in ({}, {"choices": []}, {"choices": [{"logprobs": None}]}):
        with pytest.raises(DataError, match="logprobs=true"):
            completion_token_loss(bad)


def test_routing_pairs_say_whose_loss_it_is():
    pairs = routing_pairs(X, losses_from_scores([1, 0, 1, 1]), model="small")
    assert pairs.provenance == {"objective": "routing", "loss": "1 - score", "model": "small"}
    assert pairs.losses.tolist() == [0, 1, 0, 0]
