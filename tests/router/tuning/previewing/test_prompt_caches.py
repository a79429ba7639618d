"""The costs of a session with prompt caches are those that a person computes by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from router.policies.candidates.candidate import Candidate, Prices
from router.tuning.previewing.logged_requests import LoggedRequest, read_log
from router.tuning.previewing.prompt_caches import Bill, count_tokens, price_replay
from router.tuning.previewing.replay import NOBODY
from tests.router.tuning.previewing.logs import LARGE, SMALL_CACHED, write_log

CANDIDATES = [Candidate(name="small", model="openai/small"), Candidate(name="large", model="openai/large")]
PRICES = [Prices(**SMALL_CACHED), Prices(**LARGE)]
SMALL, BIG = 0, 1


def turn(role: str, n_tokens: int, letter: str) -> dict[str, str]:
    """Return a message of so many estimated tokens: four letters are one token."""
    return {"role": role, "content": letter * (4 * n_tokens)}


#: Three requests of one session, of 100, 130 and 160 input tokens, each with an answer of 20 tokens.
CHAT = [turn("user", 100, "a"), turn("assistant", 20, "b"), turn("user", 10, "c")]
CHAT += [turn("assistant", 20, "d"), turn("user", 10, "e")]


def session(folder: Path, times: tuple[int, ...] = (0, 60, 120), **more: Any) -> tuple[LoggedRequest, ...]:
    rows = [
        {"messages": CHAT[:end], "session_id": "s", "timestamp": 1_760_000_000 + at, "output_tokens": 20} | more
        for end, at in zip((1, 3, 5), times, strict=True)
    ]
    return read_log([write_log(folder / "log.jsonl", *rows)]).requests


def bill(requests: tuple[LoggedRequest, ...], *chosen: int) -> Bill:
    return price_replay(requests, np.array(chosen), count_tokens(requests, CANDIDATES), CANDIDATES, PRICES)


def usd(found: Bill) -> list[float]:
    return [round(cost * 1e6, 6) for cost in found.cost_usd]


def test_one_candidate_reads_what_it_read_before_at_the_price_of_cached_input(tmp_path: Path) -> None:
    found = bill(session(tmp_path), BIG, BIG, BIG)
    # 100 at 10, 20 out at 20; then 100 at 1 and 30 at 10; then 130 at 1 and 30 at 10.
    assert usd(found) == [1000 + 400, 100 + 300 + 400, 130 + 300 + 400]
    assert found.cached.tolist() == [0, 100, 130]
    assert found.n_switches == 0


def test_a_switch_loses_the_cache_and_a_return_has_what_was_read_before_the_switch(tmp_path: Path) -> None:
    found = bill(session(tmp_path), BIG, SMALL, BIG)
    # The small one reads 130 cold at 1. The large one has its first 100 warm, and reads the other 60 at 10.
    assert usd(found) == [1400, 130 + 40, 100 + 600 + 400]
    assert found.n_switches == 2


def test_a_cache_is_lost_after_its_seconds_and_lives_on_by_each_use(tmp_path: Path) -> None:
    assert bill(session(tmp_path, (0, 300, 600)), BIG, BIG, BIG).cached.tolist() == [0, 100, 130]
    assert bill(session(tmp_path, (0, 301, 601)), BIG, BIG, BIG).cached.tolist() == [0, 0, 130]


def test_tokens_that_the_log_counts_keep_the_share_that_is_cached(tmp_path: Path) -> None:
    found = bill(session(tmp_path, input_tokens=1300), BIG, BIG, BIG)
    assert found.input.tolist() == [1300] * 3
    np.testing.assert_allclose(found.cached, [0, 1300 * 100 / 130, 1300 * 130 / 160])


def test_a_chat_that_begins_otherwise_is_read_anew(tmp_path: Path) -> None:
    rows = [
        {"messages": [turn("system", 10, letter), turn("user", 100, "a")], "session_id": "s", "output_tokens": 20}
        for letter in "xyy"
    ]
    requests = read_log([write_log(tmp_path / "log.jsonl", *rows)]).requests
    assert bill(requests, BIG, BIG, BIG).cached.tolist() == [0, 0, 110]


def test_other_tools_change_the_beginning_and_equal_tools_are_a_part_of_it(tmp_path: Path) -> None:
    tools = [[{"type": "function", "function": {"name": name}}] for name in ("f", "g", "g")]
    rows = [{"messages": CHAT[:1], "session_id": "s", "tools": one, "output_tokens": 20} for one in tools]
    requests = read_log([write_log(tmp_path / "log.jsonl", *rows)]).requests
    found = bill(requests, BIG, BIG, BIG)
    assert found.cached.tolist()[:2] == [0, 0]
    assert found.cached[2] == found.input[2]


def test_without_a_price_of_cached_input_the_whole_chat_is_billed(tmp_path: Path) -> None:
    requests = session(tmp_path)
    prices = [Prices(input_usd_per_million_tokens=1, output_usd_per_million_tokens=2), None]
    found = price_replay(requests, np.array([0, 0, 0]), count_tokens(requests, CANDIDATES), CANDIDATES, prices)
    assert (usd(found), found.cached.sum()) == ([140, 170, 200], 0)
    unknown = price_replay(requests, np.array([0, 1, NOBODY]), count_tokens(requests, CANDIDATES), CANDIDATES, prices)
    assert np.isnan(unknown.cost_usd).tolist() == [False, True, True]


@pytest.mark.parametrize("session_id", ["", None])
def test_requests_without_a_session_share_no_cache(tmp_path: Path, session_id: str | None) -> None:
    found = bill(session(tmp_path, session_id=session_id), BIG, BIG, BIG)
    assert found.cached.tolist() == [0, 0, 0]


def test_an_answer_that_the_log_lacks_has_the_expected_length_within_the_bound_of_the_request(tmp_path: Path) -> None:
    log = write_log(tmp_path / "log.jsonl", {"prompt": "word " * 8}, {"messages": CHAT[:1], "max_tokens": 7})
    tokens = count_tokens(read_log([log]).requests, CANDIDATES)
    assert tokens.output.tolist() == [[300, 300], [7, 7]]
    assert (tokens.input.tolist(), tokens.n_estimated_inputs, tokens.n_estimated_outputs) == ([10, 100], 2, 2)
