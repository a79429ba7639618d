"""The memory of sessions keeps the last candidate of each caller's session, for a time and up to a number."""

from __future__ import annotations

import threading

from router.deciding.session_memory import SessionMemory
from router.values import HeldCandidate

NAMES = ("small", "large")


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def make_memory(*, max_entries: int = 1000, ttl_s: float = 3600.0, clock: Clock | None = None) -> SessionMemory:
    return SessionMemory(max_entries=max_entries, ttl_s=ttl_s, clock=clock or Clock())


def test_the_last_candidate_is_remembered_with_its_tokens_and_time() -> None:
    clock = Clock()
    sessions = make_memory(clock=clock)
    assert sessions.held("me", "s", "p", NAMES) is None
    sessions.remember("me", "s", "p", "small", 10)
    sessions.remember("me", "s", "p", "large", 20)
    clock.now = 7
    assert sessions.held("me", "s", "p", NAMES) == HeldCandidate("large", 20, 7)


def test_callers_sessions_and_policies_are_kept_apart() -> None:
    sessions = make_memory()
    sessions.remember("me", "s", "p", "small", 10)
    for other in (("you", "s", "p"), ("me", "t", "p"), ("me", "s", "q"), ("m", "es", "p"), ("", "s", "p")):
        assert sessions.held(*other, NAMES) is None


def test_the_least_recently_used_session_is_forgotten_first() -> None:
    clock = Clock()
    sessions = make_memory(max_entries=2, clock=clock)
    for name in ("a", "b", "a", "c"):
        clock.now += 1
        sessions.remember("", name, "p", "small", 1)
    assert [sessions.held("", name, "p", NAMES) is not None for name in "abc"] == [True, False, True]
    assert len(sessions) == 2


def test_idle_sessions_are_forgotten_and_their_memory_is_freed() -> None:
    clock = Clock()
    sessions = make_memory(ttl_s=60, clock=clock)
    for number in range(100):
        sessions.remember("", str(number), "p", "small", 1)
    clock.now = 60
    assert sessions.held("", "99", "p", NAMES) is not None
    clock.now = 60.5
    assert sessions.held("", "99", "p", NAMES) is None
    assert len(sessions) == 0


def test_a_candidate_that_the_policy_no_longer_has_is_not_held() -> None:
    sessions = make_memory()
    sessions.remember("me", "s", "p", "gone", 10)
    assert sessions.held("me", "s", "p", NAMES) is None


def test_a_full_memory_keeps_nine_in_ten_of_the_newest() -> None:
    clock = Clock()
    sessions = make_memory(max_entries=2000, clock=clock)
    for number in range(6000):
        clock.now += 1
        sessions.remember("", str(number), "p", "small", 1)
    assert len(sessions) <= 2000
    newest = [sessions.held("", str(number), "p", NAMES) is not None for number in range(4000, 6000)]
    assert sum(newest) >= 1700
    assert all(newest[-200:])


def test_a_memory_of_size_0_remembers_nothing() -> None:
    sessions = make_memory(max_entries=0)
    sessions.remember("", "s", "p", "small", 1)
    assert sessions.held("", "s", "p", NAMES) is None


def test_many_threads_stay_within_the_bound() -> None:
    sessions = make_memory(max_entries=50)

    def work(me: str) -> None:
        for number in range(500):
            sessions.remember(me, str(number), "p", me, number)
            held = sessions.held(me, str(number), "p", [me])
            assert held is None or (held.candidate, held.input_tokens) == (me, number)

    threads = [threading.Thread(target=work, args=(str(i),)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert 40 <= len(sessions) <= 50
