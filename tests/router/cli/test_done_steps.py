"""A step is done again if anything that it reads or wrote is different, and only then."""

from __future__ import annotations

from pathlib import Path

import pytest

from router.cli.starting.done_steps import STATE, DoneSteps, FileStep, StepReport


class Steps:
    """One step in a folder that copies a file, and counts how often it does."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.count, self.finished = folder, 0, True
        self.source, self.copy = folder / "source.txt", folder / "made"
        self.source.write_text("one")

    def do(self, **reads: object) -> bool:
        """Do the step; return whether it was skipped."""

        def work() -> StepReport:
            self.count += 1
            self.copy.mkdir(exist_ok=True)
            (self.copy / "copy.txt").write_text(self.source.read_text())
            return StepReport(f"copied {self.count} times", self.finished)

        step = FileStep("copy", {"source": self.source, **reads}, (self.copy,), work)
        done = DoneSteps(self.folder).do(step)
        assert done.said == f"copied {self.count} times"
        return done.skipped


def test_a_step_is_skipped_until_something_changes(tmp_path: Path) -> None:
    steps = Steps(tmp_path)
    assert [steps.do(), steps.do()] == [False, True]
    steps.source.write_text("two")
    assert [steps.do(), steps.do()] == [False, True]
    (steps.copy / "copy.txt").write_text("changed by hand")
    assert [steps.do(), steps.do()] == [False, True]
    (steps.copy / "copy.txt").unlink()
    assert [steps.do(), steps.do()] == [False, True]
    assert [steps.do(limit=1), steps.do(limit=1), steps.do(limit=2)] == [False, True, False]
    assert [steps.do(files=[steps.source]), steps.do(files=[steps.source])] == [False, True]


def test_a_step_that_did_not_finish_or_failed_is_done_again(tmp_path: Path) -> None:
    steps = Steps(tmp_path)
    steps.finished = False
    assert [steps.do(), steps.do()] == [False, False]

    def fail() -> StepReport:
        raise ValueError("no")

    for _ in range(2):
        with pytest.raises(ValueError, match="no"):
            DoneSteps(tmp_path).do(FileStep("fails", {}, (), fail))


@pytest.mark.parametrize("state", ["", "nonsense", "[1]", '{"copy": 3}'])
def test_a_record_that_somebody_spoiled_means_that_nothing_is_done(tmp_path: Path, state: str) -> None:
    steps = Steps(tmp_path)
    steps.do()
    (tmp_path / STATE).write_text(state)
    assert steps.do() is False
