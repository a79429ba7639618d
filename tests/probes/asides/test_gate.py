"""The gate scores every part of a sentence as if it stood alone, and is read from its file or not at all."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load, save

from probes.asides.gate import BITS, GATE_FILE, AsideGate, runs_of, words_of
from probes.errors import EncoderError


@pytest.fixture(scope="module")
def gate() -> AsideGate:
    return AsideGate.read()


@pytest.mark.parametrize("sentence", ["Thank you so much", "谢谢你 的 帮助", "İstanbul ÇOK güzel", "a b c", "x", ""])
def test_a_score_is_the_sum_of_the_weights_of_its_runs(gate: AsideGate, sentence: str) -> None:
    runs = np.concatenate(runs_of(words_of(sentence)))
    by_hand = int(gate.weights[runs].astype(int).sum()) * gate.scale / math.sqrt(len(runs)) + gate.intercept
    assert gate.score(sentence) == by_hand


def test_last_words_score_as_if_they_stood_alone(gate: AsideGate) -> None:
    words = words_of("81 / 9 Thank you VERY much 谢谢")
    scores = gate.scores_from(words, range(len(words)))
    assert scores == [gate.score(" ".join(words[first:])) for first in range(len(words))]


def test_blanks_and_capitals_change_no_score(gate: AsideGate) -> None:
    assert gate.score("  THANK \n you ") == gate.score("thank you")


def test_letters_that_are_no_letters_have_a_score(gate: AsideGate) -> None:
    assert math.isfinite(gate.score("\ud800 \x00 \U0010ffff"))


def test_the_file_is_the_one_that_the_gate_names(gate: AsideGate) -> None:
    assert gate.contents == GATE_FILE.read_bytes()
    assert gate.weights.shape == (1 << BITS,)


@pytest.mark.parametrize("contents", [b"", b"nonsense", save({"weights": np.zeros(3, np.int16)})])
def test_a_file_that_is_no_gate_is_a_clear_error(tmp_path: Path, contents: bytes) -> None:
    (tmp_path / "gate").write_bytes(contents)
    with pytest.raises(EncoderError, match="install the package again"):
        AsideGate.read(tmp_path / "gate")


def test_a_gate_for_other_rules_is_refused(tmp_path: Path) -> None:
    (tmp_path / "gate").write_bytes(save(load(GATE_FILE.read_bytes()) | {"rules": np.array([0])}))
    with pytest.raises(EncoderError, match="made for another version"):
        AsideGate.read(tmp_path / "gate")
