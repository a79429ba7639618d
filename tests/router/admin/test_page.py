"""The operator's page: its figures, the box to try a prompt, and who may see it."""

from __future__ import annotations

import base64
import re
import socket
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from router.admin.figures import _REASONS
from router.decision import Reason
from router.errors import ConfigError
from router.identity.gate import IdentitySettings
from router.identity.principal import Scope
from router.observing import catalogue
from router.rollout.canary import Canary, CanaryEvent, CanaryPlan, CanaryStatus
from router.rollout.canary_file import CanaryFile
from router.serving.settings import ServerSettings
from router.serving.watching.admin_port import serving_admin
from tests.router.admin.served import EXPIRED, Served, served_page
from tests.router.identity.guarded import add_token, usual_tokens

PROMPT = "<script>alert('a prompt')</script> & more"


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with served_page(tmp_path_factory.mktemp("page")) as served:
        yield served


def words(html: str) -> str:
    """Return the text of a page as a reader sees it."""
    text = re.sub(r"<script.*?</script>|<[^>]*>", " ", html, flags=re.DOTALL)
    return re.sub(r"\s+", " ", text.replace("&#39;", "'"))


def test_the_page_shows_what_was_decided_why_and_what_is_saved(page: Served) -> None:
    answer = httpx.get(f"{page.url}/?period=all")
    assert answer.status_code == 200
    told = words(answer.text)
    for figure in (
        "Decisions 3",
        "Decided share 50.0 %",  # two of three decisions and one refusal
        "As decided $3.00",
        "If the last tier always answered $12.00",
        "Of that, for cold prompt caches $0.75",
        "Saved against the last tier $9.00, 75.0 %",
        "A stronger tier is not worth its price here GAIN_BELOW_THRESHOLD 2 66.7 %",
        "Refused: OVERLOADED 1",
        "Version 1.2.3",
        "expired on 2020-09-13",
        "The certificate of test abcdef has expired.",
        # There are 300 more callers, and all else is shown nevertheless.
        "Token Decisions Above the cheapest Cost of answers team-&lt;b&gt; 4 25.0 % $7.25 team-0 2 50.0 % $0.5000",
    ):
        assert figure in told, figure


def test_the_figures_are_json_too(page: Served) -> None:
    told = httpx.get(f"{page.url}/status.json?period=all").json()
    assert told["period_total"]["decisions"] == 3
    assert told["costs"]["saved_share"] == 0.75
    (candidate,) = told["candidates"]
    assert candidate.items() >= {"name": "small", "decisions": 3, "attempts": 1, "answered": 1}.items()
    assert candidate["first_content_p95_s"] == pytest.approx(0.4875)
    assert [one["policy"] for one in told["served"]] == ["test"]
    assert set(told["series"]) == {"at", "decisions", "cost_per_hour", "milliseconds"}


def test_every_reason_that_a_service_gives_is_described() -> None:
    assert set(_REASONS) == set(Reason) - {Reason.UNKNOWN}


def test_the_page_shows_what_is_tried_and_watched(tmp_path: Path) -> None:
    canary, path = Canary(CanaryPlan("c1", "next", "test", max_loss=0.1)), tmp_path / "canary.json"
    file = CanaryFile(path, canary)
    with served_page(tmp_path, canary=path) as served:
        missing = httpx.get(served.url).text
        assert "does not exist; begin one" in missing
        file.note(CanaryEvent(EXPIRED, CanaryStatus.RUNNING, 0.05, "begun <b>"), "me")
        file.save()
        told, shown = httpx.get(f"{served.url}/status.json").json(), httpx.get(served.url).text
    state = {"policy": "next", "base": "test", "status": "running", "share": 0.05, "labels": 0, "why": "begun <b>"}
    assert told["canary"].items() >= state.items()
    assert told["shadows"] == [
        {"name": "next", "compared": 40, "alike_share": 0.75, "uncompared": 2, "serving_usd": 1.5, "shadow_usd": 2.5}
    ]
    assert told["drift"][0]["signals"][0] == {"signal": "kinds", "distance": 0.25, "alarm": True}
    assert told["ledger"].items() >= {"down": True, "written": 70, "dropped": 5}.items()
    assert told["tls"]["days"] < 0
    for words in (
        "next instead of test",
        "begun &lt;b&gt;",
        "75.0\u00a0%",
        "differs from the baseline",
        "The database takes no rows",
        "The TLS certificate",
    ):
        assert words in shown, words


def test_an_unknown_period_is_the_usual_one(page: Served) -> None:
    assert httpx.get(f"{page.url}/status.json?period=<b>").json()["period"] == "1h"


def test_a_prompt_is_decided_explained_and_not_counted(page: Served) -> None:
    before = page.totals.snapshot().series(catalogue.DECISIONS)
    told = words(httpx.post(f"{page.url}/try", data={"prompt": "prompt number 7", "policy": "test"}).text)
    assert re.search(r"(small|large) answers", told)
    for part in ("What was judged", "prompt number 7", "Nearest known kinds", "this prompt", "Risk of small", "Sum"):
        assert part in told, part
    assert page.totals.snapshot().series(catalogue.DECISIONS) == before


def test_what_is_tried_comes_back_as_text_and_never_as_code(page: Served) -> None:
    answer = httpx.post(f"{page.url}/try", data={"prompt": PROMPT, "policy": ""})
    assert "<script>alert" not in answer.text
    assert "&lt;script&gt;alert" in answer.text
    assert answer.headers["cache-control"] == "no-store"


@pytest.mark.parametrize(
    ("form", "told"),
    [
        ({"prompt": "x", "policy": "nobody"}, "policy must be one of test"),
        ({"prompt": "x" * 40_000, "policy": ""}, "at most 32,768 characters"),
        ({}, "answers"),
    ],
)
def test_what_cannot_be_tried_is_said(page: Served, form: dict[str, str], told: str) -> None:
    assert told in words(httpx.post(f"{page.url}/try", data=form).text)


def test_a_form_that_is_too_long_is_refused_before_it_is_read(page: Served) -> None:
    assert httpx.post(f"{page.url}/try", content=b"prompt=" + b"x" * 500_000).status_code == 413


@pytest.mark.parametrize(
    "headers",
    [
        {"host": "elle.example.com"},
        {"origin": "https://elsewhere.example.com"},
        {"origin": "null"},
        {"sec-fetch-site": "cross-site"},
    ],
)
def test_other_pages_can_neither_read_this_one_nor_send_its_form(page: Served, headers: dict[str, str]) -> None:
    assert httpx.post(f"{page.url}/try", data={"prompt": "x"}, headers=headers).status_code == 403


@pytest.mark.parametrize(
    ("headers", "body", "status"),
    [
        ({"host": "[::1"}, "", 403),
        ({"host": ""}, "", 403),
        ({"host": "0.0.0.0"}, "", 403),
        ({"host": "localhost", "origin": "http://["}, "", 403),
        ({"host": "localhost", "origin": "null"}, "", 403),
        ({"host": "localhost"}, "&".join(f"a{number}=1" for number in range(11)), 400),
    ],
)
def test_what_no_browser_sends_is_refused_without_a_fault(
    page: Served, headers: dict[str, str], body: str, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    assert httpx.post(f"{page.url}/try", headers=headers, content=body).status_code == status
    assert not caplog.records


def test_every_answer_forbids_foreign_code_frames_and_keeping(page: Served) -> None:
    for path in ("/", "/status.json", "/static/page.css", "/nowhere", "/static/../site.py"):
        headers = httpx.get(f"{page.url}{path}").headers
        assert "default-src 'none'" in headers["content-security-policy"], path
        assert "unsafe" not in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"


def test_the_page_names_no_address_elsewhere(page: Served) -> None:
    assert not re.findall(r"(?:src|href|action)=\"(?:https?:)?//", httpx.get(page.url).text)


def test_with_tokens_only_those_with_the_scope_admin_see_it(tmp_path: Path) -> None:
    book = tmp_path / "tokens.json"
    admin, _ = add_token(book, "a", Scope.ADMIN)
    with served_page(tmp_path, identity=IdentitySettings(book)) as served:
        basic = base64.b64encode(f"me:{admin}".encode()).decode()
        for headers in ({"authorization": f"Bearer {admin}"}, {"authorization": f"Basic {basic}"}):
            answer = httpx.get(served.url, headers=headers)
            assert answer.status_code == 200
            assert admin not in answer.text
        asked = httpx.get(f"{served.url}/status.json")
        assert asked.status_code == 401
        assert "Basic" in asked.headers["www-authenticate"]


#: For each kind of token the status of every path of the page, and the reason under which it is counted.
TURNED_AWAY = {
    "none": (401, "no_token"),
    "unknown": (401, "unknown_token"),
    "expired": (401, "expired"),
    "revoked": (401, "revoked"),
    "route": (403, "wrong_scope"),
    "used up": (429, "over_rate"),
}


def test_the_page_turns_every_kind_of_caller_away_and_counts_it(tmp_path: Path) -> None:
    book = tmp_path / "tokens.json"
    texts = usual_tokens(book) | {"used up": add_token(book, "used up", *Scope, requests_per_minute=1)[0]}
    with served_page(tmp_path, identity=IdentitySettings(book)) as served, httpx.Client() as client:
        headers = {kind: {"authorization": f"Bearer {texts.get(kind)}"} for kind in TURNED_AWAY} | {"none": {}}
        assert client.get(served.url, headers=headers["used up"]).status_code == 200
        for method, path in (("GET", "/"), ("GET", "/status.json"), ("POST", "/try"), ("GET", "/static/page.css")):
            for kind, (status, _) in TURNED_AWAY.items():
                answer = client.request(method, served.url + path, headers=headers[kind])
                assert answer.status_code == status, (path, kind)
                assert answer.json()["error"]["message"]
                assert ("retry-after" in answer.headers) == (status == 429)
        long = {"authorization": f"Bearer {texts['admin']}"}
        assert client.post(f"{served.url}/try", headers=long, data={"prompt": "x" * 500_000}).status_code == 413
        told = served.totals.snapshot().series(catalogue.TURNED_AWAY)
    assert told == {("admin", reason): 4.0 for _, reason in TURNED_AWAY.values()} | {("admin", "oversized"): 1.0}


def test_an_occupied_port_is_refused_by_its_option_and_other_machines_need_tls(page: Served) -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        held.listen()
        settings = ServerSettings(admin_port=held.getsockname()[1])
        with pytest.raises(ConfigError, match="--admin-port"), serving_admin(settings, page.totals, bytes):
            pass
    settings = ServerSettings(admin_port=0, admin_host="0.0.0.0")
    with pytest.raises(ConfigError, match="--tls-cert"), serving_admin(settings, page.totals, bytes):
        pass


def test_without_tokens_an_address_that_others_can_reach_shows_nothing(page: Served) -> None:
    settings = ServerSettings(admin_port=0, admin_host="0.0.0.0", insecure=True)
    with serving_admin(settings, page.totals, bytes) as address:
        assert address is not None
        url = f"http://127.0.0.1:{address.rpartition(':')[2]}"
        answers = [httpx.get(f"{url}{path}") for path in ("/", "/status.json", "/static/page.css")]
    assert {one.status_code for one in answers} == {401}
    assert "without --tokens" in answers[0].text
