"""Run services with tokens, a ledger and metrics in front of an upstream that gives responses in the background."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import httpx
import openai

from router.gateways.http.http_gateway import HttpGateway
from router.identity.gate import IdentitySettings
from router.ledger.settings import DatabaseSettings, LedgerSettings
from router.observing.catalogue import Metric
from router.observing.tally import Snapshot
from router.serving.ports import ServicePorts
from router.serving.server import RunningService, _serving
from router.serving.settings import ServerSettings
from tests.gateways.loopback import in_thread
from tests.gateways.responses_door.response_upstream import ResponseUpstream, running_response_upstream
from tests.router.identity.guarded import add_token
from tests.router.policies.score_policy import write_score_policy

#: What an answer is expected to cost: no input tokens worth mentioning, and 600 output tokens.
PRICES = {"input_usd_per_million_tokens": 1.0, "output_usd_per_million_tokens": 10.0}


@dataclass
class Replica:
    """A running service, and what it had counted when a test began."""

    running: RunningService
    ports: ServicePorts
    usd_before: float = 0.0
    counted_before: Snapshot = field(default_factory=Snapshot)

    @property
    def root(self) -> str:
        return f"http://{self.running.http_address}"

    @property
    def usd(self) -> float:
        """The US dollars that this service has counted for all callers in this test."""
        return self._usd - self.usd_before

    @property
    def _usd(self) -> float:
        return sum(one.usd_today for one in self.ports.gate.accounts._accounts.values())

    def counted(self, metric: Metric) -> float:
        """Return by how much a counter has grown in this test, added over all its labels."""
        now, before = self.running.tally.snapshot().series(metric), self.counted_before.series(metric)
        return sum(now.values()) - sum(before.values())

    def begin(self) -> None:
        self.usd_before, self.counted_before = self._usd, self.running.tally.snapshot()


@dataclass
class Background:
    """Replicas, their upstream, their ledger, and the tokens of two callers."""

    replicas: list[Replica]
    upstream: ResponseUpstream
    ledger: Path
    token: str
    another: str
    state: str
    rows_before: int = 0
    usd_before: float = 0.0

    def begin(self) -> None:
        """Forget what earlier tests did."""
        self.rows_before, self.usd_before = 0, 0.0
        self.rows_before = len(self.outcomes())
        self.upstream.kept.clear()
        for one in self.replicas:
            one.begin()

    def sdk(self, number: int = 0) -> openai.OpenAI:
        return openai.OpenAI(api_key=self.token, base_url=f"{self.replicas[number].root}/v1", max_retries=0)

    def get(self, below: str, number: int = 0, token: str = "") -> httpx.Response:
        headers = {"authorization": f"Bearer {token or self.token}"}
        return httpx.get(f"{self.replicas[number].root}/v1/responses/{below}", headers=headers, timeout=60)

    def outcomes(self) -> list[dict[str, Any]]:
        """Return the rows of the answers of this test in the ledger, once what was put there is written."""
        for one in self.replicas:
            assert one.running.ledger is not None
            one.running.ledger.writer.flush().result(20)
        with sqlite3.connect(self.ledger) as connection:
            connection.row_factory = sqlite3.Row
            rows = [dict(row) for row in connection.execute("SELECT * FROM outcomes ORDER BY decision_id")]
        return rows[self.rows_before :]


@contextmanager
def background(folder: Path, n: int = 1, state: DatabaseSettings | None = None) -> Iterator[Background]:
    """Run so many replicas, which share `state` if it is given."""
    texts = [add_token(folder / "tokens.json", name, usd_per_day=5)[0] for name in ("me", "another")]
    with ExitStack() as stack:
        upstream, url = stack.enter_context(running_response_upstream("a"))
        common = {"api_base": url, "speaks": ["responses"], "prices": PRICES}
        candidates = [{"name": name, "model": f"openai/up-{name}", **common} for name in ("small", "large")]
        policy = write_score_policy(folder, candidates=candidates)
        settings = ServerSettings(
            policies=(policy,),
            port=0,
            drain_s=1,
            identity=IdentitySettings(folder / "tokens.json"),
            ledger=LedgerSettings(str(folder / "ledger.db")),
            metrics_port=0,
            state=state,
        )
        replicas = []
        for _ in range(n):
            own = replace(settings, http=HttpGateway())
            ports = ServicePorts(own)
            replicas.append(Replica(stack.enter_context(in_thread(_serving(own, ports))), ports))
        yield Background(replicas, upstream, folder / "ledger.db", *texts, state=state.place if state else "")
