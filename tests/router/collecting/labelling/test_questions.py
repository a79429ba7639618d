from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from probes.errors import DataError
from router.collecting.labelling.questions import HumanQuestion, Questions
from tests.router.collecting.labelling.graded import rows, write


def made(tmp_path: Path, found: list[dict[str, Any]], seed: str = "s") -> Questions:
    return Questions.read(write(tmp_path / "outcomes.jsonl", found), seed)


def test_each_candidate_is_compared_with_the_strong_model_prompt_by_prompt(tmp_path: Path) -> None:
    questions = made(tmp_path, rows()).questions
    assert Counter((one.prompt_id, one.kind) for one in questions) == {(f"p{i}", "pair"): 2 for i in range(6)}
    assert [one.prompt_id for one in questions[::2]] == [one.prompt_id for one in questions[1::2]]
    assert {one.model for one in questions} == {"cheap", "middle"}
    assert all(f"answer {one.prompt_id[1:]} of gnorts" in one.answers for one in questions)


def test_the_order_of_prompts_and_the_sides_are_random_and_settled_by_the_seed(tmp_path: Path) -> None:
    orders = {tuple(made(tmp_path, rows(40), seed).questions) for seed in ("s", "s", "t")}
    assert len(orders) == 2
    questions = made(tmp_path, rows(200)).questions
    assert [one.prompt_id for one in questions] != sorted(one.prompt_id for one in questions)
    assert 150 < sum(one.swapped for one in questions) < 250


def test_more_rows_leave_what_was_asked_as_it_was(tmp_path: Path) -> None:
    few, many = made(tmp_path, rows(10)).questions, made(tmp_path, rows(30)).questions
    assert [one for one in many if one in few] == list(few)


def test_another_answer_is_another_question(tmp_path: Path) -> None:
    changed = rows()
    changed[0]["answer"] += "!"
    before, after = ({one.id for one in made(tmp_path, found).questions} for found in (rows(), changed))
    assert len(before - after) == len(after - before) == 1


def question(kind: str, *, swapped: bool) -> HumanQuestion:
    return HumanQuestion("id", "p", "m", kind, "request", ("one", "two"), swapped)


@pytest.mark.parametrize(
    ("kind", "key", "score", "score_if_swapped"),
    [
        ("pair", "a", 1, 0),
        ("pair", "b", 0, 1),
        ("pair", "t", 0.5, 0.5),
        ("meaning", "y", 1, 1),
        ("meaning", "n", 0, 0),
        ("single", "y", 1, 1),
        ("single", "h", 0.5, 0.5),
    ],
)
def test_a_key_scores_the_candidate_on_either_side(kind: str, key: str, score: float, score_if_swapped: float) -> None:
    assert question(kind, swapped=False).score_of(key) == score
    assert question(kind, swapped=True).score_of(key) == score_if_swapped


def test_single_answers_and_meanings_are_asked_about_in_their_own_words(tmp_path: Path) -> None:
    single = [{key: value for key, value in row.items() if key != "compared_with"} for row in rows()]
    assert {one.kind for one in made(tmp_path, single).questions} == {"single"}
    assert len(made(tmp_path, single).questions) == 18
    assert {one.kind for one in made(tmp_path, rows(grader="agreement")).questions} == {"meaning"}


def test_prompts_that_no_certificate_can_use_are_not_asked_about(tmp_path: Path) -> None:
    found = rows(4)
    found[0]["drawn"] = "informative"
    found[4]["answer"] = None
    del found[8]
    assert {one.prompt_id for one in made(tmp_path, found).questions} == {"p3"}


def test_human_scores_stand_beside_judged_ones_and_the_strong_model_follows(tmp_path: Path) -> None:
    questions = made(tmp_path, rows(2))
    first, second, third, _ = questions.questions
    labelled = questions.labelled({first.id: 1.0, second.id: 0.0, third.id: 0.5})
    found = {(row["prompt_id"], row["model"]): row.get("human_score") for row in labelled}
    done, begun = first.prompt_id, third.prompt_id
    assert found[done, first.model] == 1
    assert found[done, second.model] == 0
    assert found[done, "strong"] == 0.5
    assert found[begun, third.model] == 0.5
    assert found[begun, "strong"] is None
    assert [row.get("human_drawn") for row in labelled].count("random") == 4
    assert [row["score"] for row in labelled] == [row["score"] for row in rows(2)]
    assert questions.progress({first.id: 1.0, second.id: 0.0, third.id: 0.5}) == (1, 0)


def test_prompts_passed_over_are_counted(tmp_path: Path) -> None:
    questions = made(tmp_path, rows(5))
    scores = {one.id: 1.0 for one in questions.questions[4:8]}
    assert questions.progress(scores) == (2, 2)
    assert questions.progress({}) == (0, 0)
    assert len(questions.of_prompts(2)) == 4
    assert questions.of_prompts(99) == questions.questions


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"answer": None}, "no prompt that a person could grade"),
        ({"drawn": "informative"}, "informative"),
        ({"compared_with": "gpt-9"}, "must be a row too"),
        ({"score": 2}, "line 1: score must be a number"),
        ({"prompt_id": ""}, "line 1: prompt_id must not be empty"),
    ],
)
def test_outcomes_that_cannot_be_asked_about_are_refused(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    with pytest.raises(DataError) as caught:
        made(tmp_path, rows(**change))
    assert said in str(caught.value)


def test_missing_columns_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="columns prompt_id, answer"):
        made(tmp_path, [{"prompt": "x", "model": "m", "score": 1}])


def test_chats_are_shown_as_text(tmp_path: Path) -> None:
    chat = [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hi"}]
    found = [{k: v for k, v in row.items() if k != "prompt"} | {"messages": chat} for row in rows()]
    assert made(tmp_path, found).questions[0].request == "[user]\nHello\n\n[assistant]\nHi"
