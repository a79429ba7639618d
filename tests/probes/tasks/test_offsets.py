"""Offsets of tasks: exact sums, shrinkage in both directions, bounds, and what the method of moments recovers."""

from __future__ import annotations

import numpy as np
import pytest

from probes.errors import DataError
from probes.tasks.estimate import fit_offsets, moments
from probes.tasks.keys import MAX_KEY_BYTES, MAX_TASKS, key_fault, system_prompt_key
from probes.tasks.offsets import TaskOffsets

C = np.array([[0.09, 0.05], [0.05, 0.08]])
V = np.array([0.04, 0.06])


def empty(covariance: np.ndarray = C, variance: np.ndarray = V) -> TaskOffsets:
    m = len(variance)
    return TaskOffsets((), covariance, variance, np.zeros((0, m), np.int64), np.zeros((0, m), np.int64))


def same(a: TaskOffsets, b: TaskOffsets) -> bool:
    return a.keys == b.keys and all(
        np.array_equal(x, y) for x, y in zip(a.tensors().values(), b.tensors().values(), strict=True)
    )


def test_the_offset_is_the_posterior_mean_of_a_normal_model() -> None:
    labels = np.array([[0.4, 0.1], [0.2, np.nan], [0.3, -0.2]])
    found = empty().add("mail", labels)
    n, mean = np.array([3.0, 2.0]), np.array([0.3, -0.05])
    precision = np.linalg.inv(C) + np.diag(n / V)
    expected = np.linalg.solve(precision, n / V * mean)
    assert found.offset("mail") == pytest.approx(expected, abs=1e-6)
    assert found.n_labels("mail") == 5


def test_no_label_leaves_the_probe_alone_and_many_labels_are_believed() -> None:
    assert empty().offset("mail") is None
    many = empty().add("mail", np.tile([0.3, -0.1], (100_000, 1)))
    assert many.offset("mail") == pytest.approx([0.3, -0.1], abs=1e-5)


def test_a_label_of_one_model_moves_the_other_as_their_covariance_says() -> None:
    one = empty().add("mail", [[0.4, np.nan]]).offset("mail")
    assert one is not None
    assert one[0] == pytest.approx(0.4 * 0.09 / (0.09 + 0.04), abs=1e-6)
    assert one[1] == pytest.approx(0.4 * 0.05 / (0.09 + 0.04), abs=1e-6)
    apart = empty(np.diag([0.09, 0.08])).add("mail", [[0.4, np.nan]]).offset("mail")
    assert apart is not None
    assert apart[1] == 0.0


def test_models_that_do_not_differ_over_tasks_are_never_moved() -> None:
    none = empty(np.zeros((2, 2))).add("mail", np.ones((50, 2))).offset("mail")
    assert none is not None
    assert not none.any()


def test_the_order_of_labels_changes_nothing_to_the_bit_and_every_label_can_be_withdrawn() -> None:
    rng = np.random.default_rng(0)
    labels = rng.normal(size=(200, 2)) * 0.3
    labels[rng.random((200, 2)) < 0.2] = np.nan
    at_once = empty().add("b", labels[:50]).add("a", labels)
    one_by_one = empty()
    for row in rng.permutation(200):
        if np.isfinite(labels[row]).any():
            one_by_one = one_by_one.add("a", labels[row : row + 1])
    one_by_one = one_by_one.add("b", labels[:50][::-1])
    assert same(at_once, one_by_one)
    assert same(at_once.withdraw("a", labels[100:]), empty().add("a", labels[:100]).add("b", labels[:50]))
    assert same(at_once.withdraw("a", labels).withdraw("b", labels[:50]), empty())


def test_what_was_not_added_cannot_be_withdrawn() -> None:
    known = empty().add("mail", [[0.4, 0.1]])
    with pytest.raises(DataError, match="does not know"):
        known.withdraw("other", [[0.4, 0.1]])
    with pytest.raises(DataError, match="more labels"):
        known.withdraw("mail", [[0.4, 0.1], [0.4, 0.1]])
    with pytest.raises(DataError, match="those that were added"):
        known.withdraw("mail", [[0.5, 0.1]])


def test_keys_labels_and_tasks_are_bounded() -> None:
    for key in ("", "x" * (MAX_KEY_BYTES + 1), "ä" * 200, "a\nb", "\ud800", "x" * 10_000_000):
        assert key_fault(key)
        with pytest.raises(DataError, match="the key of a task must"):
            empty().add(key, [[0.1, 0.1]])
    assert key_fault("ä" * 128) is None
    assert key_fault(system_prompt_key("You sort mail." * 100_000)) is None
    with pytest.raises(DataError, match="at most 1024"):
        empty().add("mail", [[2000.0, 0.1]])
    with pytest.raises(DataError, match="got none"):
        empty().add("mail", [[np.nan, np.nan]])
    keys = tuple(sorted(f"task {i}" for i in range(MAX_TASKS)))
    ones = np.ones((MAX_TASKS, 1), np.int64)
    full = TaskOffsets(keys, np.eye(1), np.ones(1), ones, 0 * ones)
    assert full.add("task 7", [[0.5]]).n_labels("task 7") == 2
    with pytest.raises(DataError, match=r"at most 4,096 tasks"):
        full.add("one more", [[0.5]])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"covariance": np.array([[1.0, 2.0], [2.0, 1.0]])}, "positive semidefinite"),
        ({"covariance": np.array([[1.0, 0.2], [0.1, 1.0]])}, "symmetric"),
        ({"variance": np.array([0.0, 1.0])}, "variance > 0"),
        ({"variance": np.array([np.nan, 1.0])}, "finite"),
        ({"keys": ("b", "a")}, "sorted"),
        ({"keys": ("a", "a")}, "distinct"),
        ({"keys": ("a",)}, "shape"),
        ({"counts": np.array([[-1, 0], [0, 0]])}, "0 to"),
        ({"sums": np.array([[1, 0], [0, 0]])}, "as many labels"),
    ],
)
def test_contradicting_arrays_are_refused(change: dict[str, object], message: str) -> None:
    zeros = np.zeros((2, 2), np.int64)
    good = {"keys": ("a", "b"), "covariance": C, "variance": V, "counts": zeros, "sums": zeros}
    with pytest.raises(DataError, match=message):
        TaskOffsets(**(good | change))  # type: ignore[arg-type]


def drawn(n_tasks: int, n_rows: int, seed: int = 0) -> tuple[list[str], np.ndarray]:
    rng = np.random.default_rng(seed)
    offsets = rng.multivariate_normal([0, 0], C, size=n_tasks)
    noise = rng.multivariate_normal([0, 0], [[0.04, 0.01], [0.01, 0.06]], size=(n_tasks, n_rows))
    tasks = [f"t{t}" for t in range(n_tasks) for _ in range(n_rows)]
    return tasks, (offsets[:, None, :] + noise).reshape(-1, 2)


def test_the_moments_recover_how_tasks_differ_also_with_missing_labels() -> None:
    tasks, residuals = drawn(4000, 4)
    covariance, variance = moments(tasks, residuals)
    assert covariance == pytest.approx(C, abs=0.006)
    assert variance == pytest.approx(V, abs=0.003)
    residuals[np.random.default_rng(1).random(residuals.shape) < 0.3] = np.nan
    covariance, variance = moments(tasks, residuals)
    assert covariance == pytest.approx(C, abs=0.009)
    assert variance == pytest.approx(V, abs=0.004)


def test_tasks_that_do_not_differ_get_no_covariance_to_speak_of() -> None:
    noise = np.random.default_rng(0).normal(size=(6000, 2))
    covariance, variance = moments([f"t{i // 3}" for i in range(6000)], noise)
    assert np.abs(covariance).max() < 0.06
    assert variance == pytest.approx([1.0, 1.0], abs=0.06)


def test_three_labels_beat_none_and_the_labels_alone_on_tasks_never_seen() -> None:
    """The reason for all this, on draws whose truth is known: the mean squared error of the next label's mean."""
    tasks, residuals = drawn(200, 8)
    learned = fit_offsets(tasks, residuals, residuals)
    rows = drawn(300, 203, seed=5)[1].reshape(300, 203, 2)
    truth = rows[:, 3:].mean(axis=1)
    shrunk = np.stack([learned.add("new", labels[:3]).offset("new") for labels in rows])
    error = {
        "shrunk": ((shrunk - truth) ** 2).mean(),
        "none": (truth**2).mean(),
        "alone": ((rows[:, :3].mean(axis=1) - truth) ** 2).mean(),
    }
    assert error["shrunk"] < 0.95 * error["alone"] < error["none"]


def test_a_fit_counts_only_rows_with_a_task_and_needs_five() -> None:
    tasks, residuals = drawn(6, 4)
    tasks[0] = tasks[5] = ""
    found = fit_offsets(tasks, residuals, residuals + 1.0)
    assert [found.n_labels(key) for key in found.keys] == [6, 6, 8, 8, 8, 8]
    mean = found.sums[2] * 2.0**-32 / 4
    assert mean == pytest.approx(residuals[8:12].mean(axis=0) + 1.0, abs=1e-8)
    with pytest.raises(DataError, match="at least 5 tasks"):
        fit_offsets(tasks[:16], residuals[:16], residuals[:16])


def test_a_further_model_without_labels_follows_the_others_and_changes_no_bit_of_theirs() -> None:
    rng, slopes = np.random.default_rng(1), np.array([0.3, 0.5])
    for number in range(50):
        old = empty().add("mail", rng.normal(size=(1 + number % 4, 2)))
        before, after = old.offset("mail"), old.with_model(slopes, 0.1).offset("mail")
        assert before is not None
        assert after is not None
        assert after[:2].tobytes() == before.tobytes()
        assert after[2] == pytest.approx(slopes @ before, abs=1e-6)
    labelled = old.with_model(slopes, 0.1).add("mail", np.tile([np.nan, np.nan, 0.9], (10_000, 1)))
    assert labelled.offset("mail")[2] == pytest.approx(0.9, abs=0.01)  # type: ignore[index]
