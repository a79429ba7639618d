"""Test `elle preview`: what a policy would have done and cost, other ways to answer beside it, and the intervals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from probes.errors import DataError
from probes.measures.bootstrap import Interval
from router.policies.loading import load_policy
from router.tuning.previewing import preview_text
from router.tuning.previewing.logged_requests import RequestLog, read_log
from router.tuning.previewing.preview import POLICY, Preview, PreviewOptions, preview_policy
from router.tuning.previewing.preview_text import preview_sentences
from router.tuning.previewing.savings import Resampling
from router.tuning.previewing.slices_of_log import MOST_PARTS, MOST_TEXT, shown_text
from tests.prompts import chat_text
from tests.router.policies.score_policy import write_score_policy
from tests.router.tuning.previewing.logs import LARGE, SMALL, real_policy, session_rows, write_log

pytestmark = pytest.mark.usefixtures("_real_encoder")

#: Seldom enough resamples for a test, and often enough for an interval.
FEW = Resampling(200, 0)


def preview(folder: Path, *rows: Any, policy: Path | None = None, **options: Any) -> Preview:
    log = read_log([write_log(folder / "log.jsonl", *rows)])
    return preview_policy(load_policy(policy or real_policy(folder)), log, PreviewOptions(resampling=FEW, **options))


def way(found: Preview, name: str) -> Any:
    return next(one for one in found.ways if one.name == name)


def test_shares_and_costs_are_those_of_the_decisions(tmp_path: Path) -> None:
    rows = [{"prompt": chat_text(label), "output_tokens": 100} for label in ("code", "systems programming")]
    found = preview(tmp_path, *rows)
    assert found.own.shares == {"small": 0.5, "large": 0.5}
    tokens = [-(-len(str(row["prompt"]).encode()) // 4) for row in rows]
    cost = (tokens[0] * 5 + 100 * 30 + tokens[1] * 10 + 100 * 30) / 1e6
    strong = sum(count * 10 + 100 * 30 for count in tokens) / 1e6
    assert found.own.cost_usd == pytest.approx(cost)
    assert found.own.saved.value == pytest.approx(1 - cost / strong)
    assert found.seeming_saving == pytest.approx(1 - cost / strong)
    assert [one.name for one in found.ways] == [POLICY, "always large", "always small"]


def test_in_long_sessions_a_calculation_without_caches_promises_what_switching_loses(tmp_path: Path) -> None:
    rows, chat = [], [{"role": "system", "content": "Rules of the house. " * 2000}]
    for number, label in enumerate(["school arithmetic", "code", "systems programming", "law"] * 3):
        chat = [*chat, {"role": "user", "content": chat_text(label)}]
        at = 1_760_000_000 + 30 * number
        rows.append({"messages": chat, "session_id": "s", "timestamp": at, "output_tokens": 50})
        chat = [*chat, {"role": "assistant", "content": "So it is. " * 20}]
    found = preview(tmp_path, *rows)
    always_switch, never_switch = way(found, "always switch"), way(found, "never switch")
    assert always_switch.n_switches > 2
    assert never_switch.n_switches == 0
    # Each switch reads the long rules anew at the full price: what seemed to save a fifth or more costs more instead.
    assert found.seeming_saving > 0.1
    assert always_switch.saved.value < -0.5
    assert found.own.saved.value > always_switch.saved.value
    assert "A calculation without prompt caches would promise" in " ".join(preview_sentences(found))


def test_a_policy_that_judges_by_a_score_says_that_a_log_does_not_hold_it(tmp_path: Path) -> None:
    found = preview(tmp_path, {"prompt": "hello"}, policy=write_score_policy(tmp_path))
    assert found.own.shares["large"] == 1
    assert any("by the score 'Confidence'" in one and "taken to go to large" in one for one in found.assumed)


def test_what_was_paid_is_compared_on_the_requests_of_which_the_log_knows_it(tmp_path: Path) -> None:
    text = chat_text("code")
    rows = [{"prompt": text, "cost_usd": 0.5}, {"prompt": text, "cost_usd": 0.25}, {"prompt": text}]
    found = preview(tmp_path, *rows)
    assert found.paid is not None
    assert (found.paid.n, found.paid.usd) == (2, 0.75)
    assert found.paid.policy_usd == pytest.approx(found.own.cost_usd * 2 / 3)
    assert found.own.saved_of_paid.value == pytest.approx(1 - found.paid.policy_usd / 0.75)
    assert preview(tmp_path, {"prompt": text}).paid is None


def test_the_candidates_that_answered_in_the_log_are_priced_if_all_are_known(tmp_path: Path) -> None:
    rows = [{"prompt": chat_text("code"), "model": name} for name in ("openai/small", "large", "gpt-4-1106-preview")]
    logged = way(preview(tmp_path, *rows), "as logged")
    assert logged.shares == {"small": pytest.approx(1 / 3), "large": pytest.approx(2 / 3)}
    found = preview(tmp_path, *rows, {"prompt": "Hi", "model": "another"})
    assert "as logged" not in [one.name for one in found.ways]


def test_intervals_are_over_sessions_and_few_sessions_have_none(tmp_path: Path) -> None:
    one_session = preview(tmp_path, *(row | {"session_id": "s"} for row in session_rows()))
    assert not one_session.own.saved.is_known
    said = " ".join(preview_sentences(one_session))
    assert "is saved (fewer than 10 sessions, too few for an interval)" in said
    assert "95 %" not in said
    assert preview_text.way_cells(one_session.own)[3].endswith("% [too few]")
    many = preview(tmp_path, *session_rows())
    assert many.own.saved.low < many.own.saved.value < many.own.saved.high
    again = preview(tmp_path, *session_rows())
    assert again.own.saved == many.own.saved


def test_refused_requests_are_counted_and_cost_nothing(tmp_path: Path) -> None:
    picture = {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:,"}}]}
    found = preview(tmp_path, {"prompt": chat_text("code")}, {"messages": [picture], "cost_usd": 9.0})
    assert (found.n, found.n_refused, found.paid) == (2, 1, None)
    assert "cannot handle image" in next(iter(found.refused))
    with pytest.raises(DataError, match="refuses every request of the log; the first error is: no candidate"):
        preview(tmp_path, {"messages": [picture]})


def test_abstentions_are_counted_and_shown_with_what_the_rule_would_have_chosen(tmp_path: Path) -> None:
    policy = real_policy(tmp_path, abstain_above_leverage=1e-6)
    found = preview(tmp_path, *({"prompt": chat_text(label)} for label in ("code", "law")), policy=policy)
    assert (found.n_abstained, found.reasons) == (2, {"ABSTAINED": 2})
    strange = found.to_read["abstained, least familiar first"]
    assert [one.chosen for one in strange] == ["large", "large"]
    assert {one.would_choose for one in strange} <= {"small", "large"}
    assert strange[0].leverage >= strange[1].leverage


def test_the_closest_and_the_surest_decisions_are_listed_once_each(tmp_path: Path) -> None:
    found = preview(tmp_path, *session_rows(), *session_rows(), show=3)
    margins = {sort: [one.margin for one in decisions] for sort, decisions in found.to_read.items()}
    assert margins["closest"] == sorted(margins["closest"])
    assert margins["surest for a cheap candidate"] == sorted(margins["surest for a cheap candidate"], reverse=True)
    assert {one.chosen for one in found.to_read["surest for a strong candidate"]} == {"large"}
    for decisions in found.to_read.values():
        assert len({one.text for one in decisions}) == len(decisions) <= 3
    hidden = preview(tmp_path, *session_rows(), with_text=False)
    assert {one.text for decisions in hidden.to_read.values() for one in decisions} == {None}


def test_a_text_is_shown_short_on_one_line_and_without_what_a_terminal_obeys() -> None:
    shown = shown_text("a\n\x1b[31mred\u202e " + "long " * 1000)
    assert shown.startswith("a �[31mred� long")
    assert len(shown) == MOST_TEXT


def test_the_log_is_cut_by_kind_group_task_and_language_and_many_labels_count_together(tmp_path: Path) -> None:
    rows = [{"prompt": chat_text("German") + "\n```python\nx = 1\n```", "group": "g0", "task": "t"}]
    rows += [{"prompt": chat_text("code"), "group": f"g{number}"} for number in range(MOST_PARTS + 4)]
    parts = preview(tmp_path, *rows).parts
    assert set(parts) == {"form", "group", "task", "language"}
    assert next(iter(parts["group"])) == "g0"
    assert (len(parts["group"]), parts["group"]["(all others)"].n) == (MOST_PARTS + 1, 4)
    assert parts["language"]["de"].n == 1
    cost = sum(part.cost_usd for part in parts["group"].values() if part.cost_usd is not None)
    assert cost == pytest.approx(sum(part.cost_usd for part in parts["language"].values() if part.cost_usd is not None))


def test_without_prices_the_shares_are_known_and_the_costs_are_not(tmp_path: Path) -> None:
    candidate = {"model": "openai/m", "api_base": "canned", "capabilities": ["text"]}
    names = {"small": "Mixtral-8x7B-Instruct-v0.1", "large": "gpt-4-1106-preview"}
    candidates = [candidate | {"name": name, "probe_model": model} for name, model in names.items()]
    found = preview(tmp_path, {"prompt": "Hi", "cost_usd": 1.0}, policy=real_policy(tmp_path, candidates=candidates))
    assert (found.own.cost_usd, found.own.saved, found.seeming_saving) == (None, None, None)
    assert (found.paid.usd, found.paid.policy_usd) == (1.0, None)
    assert found.assumed[0].startswith("The policy states no prices of small, large, so what they cost is not known.")
    assert "What that costs is not known" in " ".join(preview_sentences(found))


def test_a_fixed_policy_without_a_probe_is_previewed_too(tmp_path: Path) -> None:
    candidates = [
        {"name": "small", "model": "openai/s", "prices": SMALL},
        {"name": "large", "model": "l", "prices": LARGE},
    ]
    policy = real_policy(tmp_path, probe=None, candidates=candidates, rule={"kind": "fixed", "candidate": "small"})
    found = preview(tmp_path, {"prompt": "Hi"}, policy=policy)
    assert (found.own.shares["small"], found.reasons) == (1.0, {"FIXED": 1})


def test_the_strong_candidate_may_be_another_one_and_must_exist(tmp_path: Path) -> None:
    assert preview(tmp_path, {"prompt": "Hi"}, strong="small").always_strong.shares["small"] == 1.0
    with pytest.raises(DataError, match=r"--strong must be a candidate of the policy \(small, large\), got 'huge'"):
        preview(tmp_path, {"prompt": "Hi"}, strong="huge")


def test_equal_prompts_are_encoded_once(tmp_path: Path) -> None:
    rows = [{"prompt": f"What is {number % 3} plus one, and why is it new in {tmp_path.name}?"} for number in range(9)]
    told: list[tuple[str, int, int]] = []
    log = read_log([write_log(tmp_path / "log.jsonl", *rows)])
    preview_policy(
        load_policy(real_policy(tmp_path)), log, PreviewOptions(resampling=FEW), lambda *one: told.append(one)
    )
    assert {total for label, _, total in told if label == "encoding"} <= {3}
    assert ("deciding", 9, 9) in told


def test_the_period_is_that_of_the_log(tmp_path: Path) -> None:
    found = preview(tmp_path, {"prompt": "a", "timestamp": 0.5}, {"prompt": "b", "timestamp": 86400})
    assert found.period == ("1970-01-01T00:00:00+00:00", "1970-01-02T00:00:00+00:00")
    assert preview(tmp_path, {"prompt": "a"}).period is None


def test_all_answers_of_the_log_share_one_set_of_draws(tmp_path: Path) -> None:
    found = preview(tmp_path, *session_rows())
    always = found.always_strong.saved
    assert (always.value, always.low, always.high) == (0, 0, 0)
    assert np.isclose(sum(found.own.shares.values()), 1)


def test_a_log_is_read_once_however_many_files_it_has(tmp_path: Path) -> None:
    for number in range(3):
        write_log(tmp_path / f"part{number}.jsonl", {"prompt": f"question {number}"})
    log: RequestLog = read_log([tmp_path])
    assert (log.n_files, len(log.requests), log.format) == (3, 3, "table")


def test_a_policy_that_costs_many_times_as_much_says_how_many_times() -> None:
    said = preview_text._saving(Interval(-47.0, -50.0, -40.0))
    assert said == "48 times as much is spent (95 % interval over sessions 41 to 51 times)"
