"""Metrics count decisions, answers and costs by closed labels, add processes up, and never go back."""

from __future__ import annotations

import contextlib
import re
import socket
import ssl
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from router import errors
from router.attempts import Attempt, AttemptOutcome
from router.deciding.pipeline import Router
from router.decision import RoutingDecision
from router.observing import catalogue
from router.observing.catalogue import CATALOGUE, MetricKind
from router.observing.cost_comparison import CostComparison
from router.observing.metrics import MetricsObserver
from router.observing.observer import AnsweredEvent, AnswerOutcome, DecidedEvent, Observers, RefusedEvent
from router.observing.prometheus import MOST_CONNECTIONS, metrics_registry, serve_metrics
from router.observing.tally import MAX_VERSIONS, Snapshot, Tally
from router.observing.totals import Totals
from router.policies.loading import load_policies
from router.values import Overrides, RouteQuery
from tests.fakes import FakeEncoder, write_policy
from tests.router.observing.events import decision_of
from tests.router.serving.processes import wait_until

PRICES = {"input_usd_per_million_tokens": 10.0, "output_usd_per_million_tokens": 0.0}
WARM = {"cached_input_usd_per_million_tokens": 1.0}

#: About 1,000 tokens, so that the costs of a request are of its input.
LONG = "why? " * 800


def priced_policy(folder: Path, **changes: object) -> Path:
    """Write a policy whose strong tier costs ten times as much as the weak one, and a tenth from a warm cache."""
    weak = {"name": "small", "model": "openai/small", "prices": PRICES | WARM}
    strong_prices = {key: 10 * value for key, value in (PRICES | WARM).items()}
    strong = {"name": "large", "model": "openai/large", "prices": strong_prices}
    return write_policy(folder, candidates=[weak, strong], **changes)


class Watched:
    """A router with its metrics."""

    def __init__(self, path: Path) -> None:
        self.tally = Tally()
        self.observer = MetricsObserver(self.tally)
        encoder = FakeEncoder()
        observers = Observers(self.observer)
        self.router = Router(load_policies([path]), {encoder.spec.identity: encoder}, observers=observers)

    async def decide(self, text: str = LONG, **asked: object) -> RoutingDecision:
        session, caller = str(asked.pop("session", "")), str(asked.pop("caller", ""))
        query = RouteQuery.from_prompt(text, session_id=session, overrides=Overrides(**asked))  # type: ignore[arg-type]
        return await self.router.adecide(query, caller=caller)

    def total(self, metric: catalogue.Metric, *labels: str) -> float:
        """Return the sum of all series whose labels after the version are these."""
        series = self.tally.snapshot().series(metric)
        start = 2 if metric.labels[:2] == ("policy", "version") else 0
        return sum(value for key, value in series.items() if key[start : start + len(labels)] == labels)


@pytest.fixture
async def watched(tmp_path: Path) -> Iterator[Watched]:
    found = Watched(priced_policy(tmp_path))
    yield found
    await found.router.close()


async def test_decisions_are_counted_by_candidate_and_reason_and_refusals_by_reason(watched: Watched) -> None:
    await watched.decide(pin="small")
    await watched.decide(pin="large")
    await watched.decide(pin="large")
    with pytest.raises(errors.UnknownPolicyError):
        await watched.decide(policy="nobody")
    assert watched.total(catalogue.DECISIONS, "small", "PINNED") == 1
    assert watched.total(catalogue.DECISIONS, "large", "PINNED") == 2
    assert watched.tally.snapshot().series(catalogue.REFUSED) == {("UNKNOWN_POLICY",): 1.0}


async def test_costs_are_compared_with_always_asking_one_tier(watched: Watched) -> None:
    decided = await watched.decide(pin="small")
    cost = decided.candidates[0].expected_cost_usd
    assert cost
    assert watched.total(catalogue.EXPECTED_COST, "small") == pytest.approx(cost)
    assert watched.total(catalogue.ALWAYS_WEAK_COST) == pytest.approx(cost)
    assert watched.total(catalogue.ALWAYS_STRONG_COST) == pytest.approx(10 * cost)
    assert watched.total(catalogue.COLD_CACHE_COST) == 0


async def test_a_session_that_moves_pays_for_its_cold_cache_and_one_that_stays_does_not(watched: Watched) -> None:
    cost = (await watched.decide(pin="small", session="s")).candidates[0].expected_cost_usd
    assert cost
    await watched.decide(pin="small", session="s")
    # The second request reads everything from the cache, at a tenth of the price.
    assert watched.total(catalogue.EXPECTED_COST, "small") == pytest.approx(1.1 * cost)
    assert watched.total(catalogue.COLD_CACHE_COST) == 0
    await watched.decide(pin="large", session="s")
    assert watched.total(catalogue.EXPECTED_COST, "large") == pytest.approx(10 * cost)
    assert watched.total(catalogue.COLD_CACHE_COST) == pytest.approx(9 * cost)
    # Always asking the strong tier would have read twice from its warm cache.
    assert watched.total(catalogue.ALWAYS_STRONG_COST) == pytest.approx(12 * cost)
    sessions = [watched.total(catalogue.SESSION_DECISIONS, what) for what in ("none", "new", "kept", "moved")]
    assert sessions == [0, 1, 1, 1]


async def test_without_prices_decisions_are_counted_as_such(tmp_path: Path) -> None:
    watched = Watched(write_policy(tmp_path))
    await watched.decide(pin="small")
    await watched.router.close()
    assert watched.total(catalogue.UNPRICED) == 1
    assert not watched.tally.snapshot().series(catalogue.EXPECTED_COST)


async def test_the_cache_and_the_stages_of_a_decision_are_counted(watched: Watched) -> None:
    for text in ("once", "twice", "twice"):
        await watched.decide(text, caller="me")
    told = watched.tally.snapshot()
    assert (told.value(catalogue.CACHE_HITS), told.value(catalogue.CACHE_MISSES)) == (1, 2)
    rows = told.histograms[catalogue.DECISION_SECONDS.name]
    counts = {stage: sum(row[:-1]) for (stage,), row in rows.items()}
    assert counts == {"queue": 2, "encode": 2, "probe": 2, "policy": 3, "total": 3}


async def test_an_answer_is_counted_with_its_attempts_times_tokens_and_cost(watched: Watched) -> None:
    decision = await watched.decide(pin="small")
    attempts = (Attempt("small", AttemptOutcome.TIMED_OUT), Attempt("large", AttemptOutcome.ANSWERED))
    event = AnsweredEvent(decision, AnswerOutcome.ANSWERED, "large", attempts, 3.0, 0.2, 10, 20, 0.5)
    watched.observer.answered(event)
    watched.observer.answered(replace(event, outcome=AnswerOutcome.FAILED, answered_by="", attempts=()))
    assert watched.total(catalogue.ATTEMPTS, "small", "TIMED_OUT") == 1
    assert watched.total(catalogue.ANSWERS, "large", "answered") == 1
    assert watched.total(catalogue.ANSWERS, "", "failed") == 1
    assert watched.total(catalogue.FELL_BACK, "small") == 1
    assert watched.total(catalogue.INPUT_TOKENS, "large") == 10
    assert watched.total(catalogue.OUTPUT_TOKENS, "large") == 20
    assert watched.total(catalogue.ANSWER_COST, "large") == 0.5
    (row,) = watched.tally.snapshot().histograms[catalogue.ANSWER_SECONDS.name].values()
    assert sum(row[:-1]) == 1
    assert row[-1] == 3.0


def test_a_value_on_a_bound_is_in_the_bucket_of_that_bound() -> None:
    tally = Tally()
    for value in (0.0, 0.0001, 0.00011, 99.0):
        tally.observe(catalogue.DECISION_SECONDS, ("total",), value)
    row = tally.snapshot().histograms[catalogue.DECISION_SECONDS.name]["total",]
    assert row[:2] == [2, 1]
    assert row[-2:] == [1, pytest.approx(99.00021)]


def test_prometheus_reads_every_metric_by_the_name_that_the_catalogue_says() -> None:
    client = pytest.importorskip("prometheus_client")
    tally = Tally()
    for metric in CATALOGUE.values():
        labels = tuple(f"a {label}" for label in metric.labels)
        if metric.kind is MetricKind.HISTOGRAM:
            tally.observe(metric, labels, 0.3)
        else:
            tally.count(metric, labels, 2.0)
    text = client.generate_latest(metrics_registry(tally.snapshot)).decode()
    read = set(re.findall(r"^(elle_\w+)[{ ]", text, re.MULTILINE))
    assert read == {name for metric in CATALOGUE.values() for name in metric.series_names}
    found = re.findall(r'^elle_decision_seconds_bucket{le="(\S+?)",stage="a stage"} (\S+)', text, re.MULTILINE)
    assert found[-4:] == [("0.5", "1.0"), ("1.0", "1.0"), ("2.5", "1.0"), ("+Inf", "1.0")]
    assert ("0.25", "0.0") in found


@pytest.mark.parametrize("encrypted", [False, True])
def test_whoever_keeps_connections_open_takes_neither_the_metrics_nor_the_files_of_the_process(
    tmp_path: Path, encrypted: bool
) -> None:
    if encrypted:
        pytest.importorskip("cryptography")
    with contextlib.ExitStack() as stack:
        context, trust = _tls(tmp_path) if encrypted else (None, None)
        port = stack.enter_context(serve_metrics(Snapshot, "127.0.0.1", 0, tls=(lambda: context) if context else None))
        before = len(threading.enumerate())
        for _ in range(3 * MOST_CONNECTIONS):
            held = stack.enter_context(contextlib.closing(socket.create_connection(("127.0.0.1", port))))
            held.sendall(b"GET /metrics HTTP/1.1\r\n")
        wait_until(lambda: len(threading.enumerate()) - before <= MOST_CONNECTIONS + 1)
        scheme = "https" if encrypted else "http"
        answer = httpx.get(f"{scheme}://127.0.0.1:{port}/metrics", timeout=60, verify=trust or True)
        assert "elle_" in answer.text


def _tls(folder: Path) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    from tests.router.identity.authority import Authority

    authority = Authority("a")
    authority.sign("service").write(folder / "cert.pem", folder / "key.pem")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    return context, ssl.create_default_context(cadata=authority.pem.decode())


def test_a_snapshot_survives_its_way_as_json_and_a_metric_of_another_version_is_left_out() -> None:
    tally = Tally()
    tally.count(catalogue.REFUSED, ("OVERLOADED",), 3)
    tally.observe(catalogue.DECISION_SECONDS, ("total",), 0.1)
    sent = tally.snapshot().to_json()
    assert Snapshot.from_json(sent) == tally.snapshot()
    assert not Snapshot.from_json(sent.replace(b"elle_refused", b"elle_of_tomorrow")).values


def decided(policy: str, digest: str) -> DecidedEvent:
    costs = CostComparison(1.0, 1.0, 2.0, 0.0)
    return DecidedEvent(RouteQuery.from_prompt("x"), decision_of(policy, digest), "", None, costs=costs)


def test_series_of_old_versions_go_and_those_in_use_stay() -> None:
    tally = Tally()
    observer = MetricsObserver(tally)
    for number in range(3 * MAX_VERSIONS):
        observer.decided(decided("p", f"{number:03}"))
        observer.decided(decided("q", "in use"))
    versions = tally.snapshot().versions()
    assert len(versions) == MAX_VERSIONS
    assert ("q", "in use") in versions
    assert ("p", f"{3 * MAX_VERSIONS - 1:03}") in versions
    assert tally.snapshot().value(catalogue.UNPRICED, "p", "000") == 0


def counted(n: float, *versions: str) -> Snapshot:
    tally = Tally(lambda: Snapshot({catalogue.WORKERS.name: {(): 1.0}, catalogue.BUILD_INFO.name: {("1", "3"): 1.0}}))
    for version in versions or ("v",):
        tally.count(catalogue.UNPRICED, ("p", version), n)
    tally.observe(catalogue.DECISION_SECONDS, ("total",), n)
    return tally.snapshot()


def test_processes_are_added_up_and_what_one_counted_stays_after_its_end() -> None:
    totals = Totals()
    totals.follow("one", lambda: counted(2))
    totals.follow("other", lambda: counted(3))
    total = totals.snapshot()
    assert total.value(catalogue.UNPRICED, "p", "v") == 5
    assert (total.value(catalogue.WORKERS), total.value(catalogue.BUILD_INFO, "1", "3")) == (2, 1)
    totals.note_end("one")
    totals.follow("one", lambda: counted(1))
    total = totals.snapshot()
    assert total.value(catalogue.UNPRICED, "p", "v") == 6
    assert total.value(catalogue.WORKERS) == 2
    (row,) = total.histograms[catalogue.DECISION_SECONDS.name].values()
    assert (sum(row[:-1]), row[-1]) == (3, 6)


def test_what_processes_left_does_not_grow_with_versions() -> None:
    totals = Totals()
    for number in range(2 * MAX_VERSIONS):
        totals.follow("one", lambda number=number: counted(1, f"{number}", "always"))  # type: ignore[misc]
        totals.note_end("one")
    assert len(totals.snapshot().versions()) == MAX_VERSIONS
    assert totals.snapshot().value(catalogue.UNPRICED, "p", "always") == 2 * MAX_VERSIONS


def test_no_label_takes_the_text_of_a_caller() -> None:
    observer = MetricsObserver(tally := Tally())
    event = decided("p", "d")
    secret = "a canary"
    decision = replace(event.decision, session_id=secret, task=secret, requested=secret, language=secret)
    observer.decided(replace(event, decision=decision, caller=secret, query=RouteQuery.from_prompt(secret)))
    observer.refused(RefusedEvent(secret, secret, errors.InvalidRequestError(secret, field=secret)))
    failed = errors.UpstreamRejectedError(secret)
    observer.answered(AnsweredEvent(decision, AnswerOutcome.FAILED, "", (), 1.0, error=failed))
    assert secret.encode() not in tally.snapshot().to_json()
