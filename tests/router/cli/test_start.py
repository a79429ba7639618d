"""`elle start`: from a log to a certified policy that is served, step by step, and only what is not done yet."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

from router.answering.canned import RIGHT, SIMULATED, WRONG, canned_text, is_right
from router.cli.main import cli
from router.client import AsyncRouterClient
from router.serving.settings import ServerSettings
from router.tuning.outcomes import feature_cache
from router.values import RouteQuery
from tests.fakes import FakeEncoder
from tests.router.collecting.simulated import rows_of, simulated, write_policy
from tests.service import running_service

STEPS = ["import", "collect", "fit", "tune", "evaluate", "report"]


def prompt(number: int) -> str:
    if number % 2:
        return f"Prove the theorem of chapter {number} about graphs with {number} edges."
    return f"Say hello to my friend number {number} in a kind way."


def write_prompts(path: Path, n: int) -> Path:
    path.write_text("".join(json.dumps({"prompt": prompt(number)}) + "\n" for number in range(n)), "utf-8")
    return path


def start(folder: Path, *options: object, models: tuple[str, str] = ("big", "small"), n: int = 400) -> Result:
    log = folder / "log.jsonl"
    if not log.exists():
        write_prompts(log, n)
    named = ("--strong", models[0], "--weak", models[1]) if models else ()
    arguments = ["start", log, *named, "--out", folder / "first", "--yes", "--max-loss", "0.08", *options]
    return CliRunner().invoke(cli, [str(argument) for argument in arguments])


def steps(done: Result) -> dict[str, bool]:
    """Return for each step whether it was skipped."""
    assert done.exit_code == 0, done.output
    return {step["name"]: step["skipped"] for step in json.loads(done.stdout)["steps"]}


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Start with features of 8 numbers, which a probe is fitted to in no time."""
    folder = tmp_path_factory.mktemp("start")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(feature_cache, "load_encoder", lambda spec, directory=None: FakeEncoder(spec))
        patch.setattr("router.cli.starting.start.RESAMPLES", 100)
        patch.setenv("ELLE_CACHE_DIR", str(folder / "cache"))
        done = start(folder, "--offline", "--json", "--max-loss", "0.5")
        assert steps(done) == dict.fromkeys(STEPS, False)
        yield folder


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.usefixtures("_real_encoder")
def test_offline_it_leads_from_a_log_to_a_certified_policy_that_is_served_and_routes(tmp_path: Path) -> None:
    assert steps(start(tmp_path, "--offline", "--json")) == dict.fromkeys(STEPS, False)

    async def ask(address: str) -> list[Any]:
        async with AsyncRouterClient(address) as client:
            queries = [RouteQuery.from_prompt(prompt(number)) for number in (1000, 1001, 1002, 1003)]
            return [await client.complete(query) for query in queries]

    with running_service(ServerSettings(port=0, policies=(tmp_path / "first" / "policy.yaml",))) as address:
        answers = asyncio.run(ask(address))
    assert [answer.decision.chosen for answer in answers] == ["small", "big", "small", "big"]
    assert all(RIGHT in answer.text or WRONG in answer.text for answer in answers)
    report = (tmp_path / "first" / "report" / "report.html").read_text("utf-8")
    assert "policy" in report
    evaluation = json.loads((tmp_path / "first" / "evaluation.json").read_text("utf-8"))
    assert evaluation["warning"] is None, "it is judged on prompts that the fit did not see"


def test_for_people_each_step_says_what_it_did_and_the_last_line_serves(started: Path) -> None:
    said = start(started, "--offline", "--max-loss", "0.5").stdout
    for name in STEPS:
        assert f"{name} (done before): " in said
    for words in ("400 prompts with 0 answers", "Certified with ", "Of 1,000 requests ", "report.html."):
        assert words in said
    assert f"elle serve --policy {started / 'first' / 'policy.yaml'}" in said


def test_what_depends_on_a_change_is_done_again(started: Path) -> None:
    again = ["tune", "evaluate", "report"]
    found = steps(start(started, "--offline", "--json", "--max-loss", "0.6"))
    assert found == {name: name not in again for name in STEPS}
    (started / "first" / "evaluation.json").write_text("{}")
    found = steps(start(started, "--offline", "--json", "--max-loss", "0.6"))
    assert [name for name, skipped in found.items() if not skipped] == ["evaluate"]
    with (started / "log.jsonl").open("a") as file:
        file.write(json.dumps({"prompt": "One more, please."}) + "\n")
    found = steps(start(started, "--offline", "--json", "--max-loss", "0.6"))
    assert not any(found.values())


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.usefixtures("_real_encoder")
def test_a_target_that_cannot_be_certified_leaves_no_policy_and_says_what_would_help(tmp_path: Path) -> None:
    write_prompts(tmp_path / "log.jsonl", 160)
    done = start(tmp_path, "--offline", "--max-loss", "0.001")
    assert done.exit_code == 3, done.output
    assert "cannot be certified with these outcomes. Give a larger --max-loss or --n" in done.stderr
    assert not (tmp_path / "first" / "policy.yaml").exists()


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.usefixtures("_real_encoder")
def test_with_real_upstreams_answers_are_graded_by_the_columns_of_the_log(tmp_path: Path) -> None:
    with simulated() as upstream:
        policy = write_policy(tmp_path / "models.yaml", upstream.url)
        rows = [
            {"prompt": f"A question of the kind {kind}, number {number}: which word is it?", "group": kind}
            | {"reference": f"{kind}-{number}", "model": "strong", "answer": f"{kind}-{number}"}
            for number in range(120)
            for kind in ("spelling", "capital", "sum")
        ]
        (tmp_path / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
        options = ("--policy", policy, "--budget-usd", "5", "--max-loss", "0.1")
        done = start(tmp_path, *options, "--json", models=("strong", "small"))
        assert steps(done) == dict.fromkeys(STEPS, False)
        assert upstream.requests == {"small": 360}, "what the log has is not asked"
        assert steps(start(tmp_path, *options, "--json", models=("strong", "small"))) == dict.fromkeys(STEPS, True)
        assert upstream.requests == {"small": 360}
    assert {row["grader"] for row in rows_of(tmp_path / "first" / "outcomes.jsonl")} == {"exact"}


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.usefixtures("_real_encoder")
def test_a_budget_that_is_too_small_for_enough_prompts_says_so_and_a_larger_one_goes_on(tmp_path: Path) -> None:
    done = start(tmp_path, "--offline", "--max-calls", "50")
    assert done.exit_code == 1
    assert "at least 150 prompts must have a score of both models" in done.stderr
    assert "the budget allows no further prompt" in done.stderr
    done = start(tmp_path, "--offline", "--json", "--max-calls", "320")
    assert "Stopped early: the budget allows no further prompt." in done.stderr
    assert steps(done)["collect"] is False
    assert steps(start(tmp_path, "--offline", "--json", "--max-calls", "320"))["collect"] is False, "not all was done"


@pytest.mark.parametrize(
    ("models", "options", "status", "message"),
    [
        ((), ("--offline",), 2, "give --strong; there is no terminal to ask on"),
        (("one", "one"), ("--offline",), 1, "must be two different models"),
        (("strong", "openai/strong"), ("--policy", "models.yaml"), 1, "must be two different models"),
        (("a", "b"), ("--offline", "--grader", "exact"), 2, "leave --grader out"),
        (("strnog", "tiny"), ("--policy", "models.yaml"), 1, "Did you mean strong?"),
    ],
)
def test_bad_input_is_refused_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, models: Any, options: Any, status: int, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    write_policy(tmp_path / "models.yaml", "http://127.0.0.1:9/v1")
    done = start(tmp_path, *options, models=models)
    assert done.exit_code == status
    assert message in done.stderr
    assert not (tmp_path / "first").exists()


@pytest.mark.parametrize(
    ("models", "near", "made_up"),
    [
        (("gpt5", "gpt-5-minni"), ("gpt-5", "gpt-5-mini"), ("2.5", "0.15")),
        (("openai/gpt5", "openai/gpt-5-mini"), ("openai/gpt-5",), ("2.5",)),
        (("anthropic/claud-sonnet-4-5", "gpt-5-mini"), ("anthropic/claude-sonnet-4-5",), ("2.5",)),
        (("big", "small"), (), ("2.5", "0.15")),
        (("gpt-5", "gpt-5-mini"), (), ()),
    ],
)
def test_a_model_without_known_prices_is_told_with_the_nearest_one_and_the_price_that_counts(
    tmp_path: Path, models: tuple[str, str], near: tuple[str, ...], made_up: tuple[str, ...]
) -> None:
    done = start(tmp_path, "--offline", models=models, n=1)
    notes = [line for line in done.stderr.splitlines() if line.startswith("note: ")]
    assert len(notes) == len(made_up)
    assert all("name it by --policy" in note for note in notes)
    assert {word for word in near if any(f"Did you mean {word}?" in note for note in notes)} == set(near)
    assert ("Did you mean" in done.stderr) == bool(near)
    assert all(any(f"counts: {price} USD per million tokens in" in note for note in notes) for price in made_up)


def test_real_models_without_known_prices_are_told_and_have_none(tmp_path: Path) -> None:
    done = start(tmp_path, models=("openai/gpt5", "openai/gpt-5-mini"), n=1)
    (note,) = [line for line in done.stderr.splitlines() if line.startswith("note: ")]
    assert note.startswith("note: candidate 'gpt5': LiteLLM's table has no prices for 'openai/gpt5'; state ")
    assert note.endswith(
        " Did you mean openai/gpt-5? To give them, describe both models in a policy file, and name it by --policy."
    )


def test_offline_the_prices_are_those_of_the_policy_file(tmp_path: Path) -> None:
    (tmp_path / "models.yaml").write_text(
        """
schema: elle.policy/1
name: mine
candidates:
- name: small
  model: openai/mine-1
  api_key_env: MINE
  prices: {input_usd_per_million_tokens: 7, output_usd_per_million_tokens: 8}
- {name: big, model: openai/mine-2, probe_model: large}
rule: {kind: fixed, candidate: big}
safe_default: big
"""
    )
    done = start(tmp_path, "--offline", "--policy", tmp_path / "models.yaml", n=1)
    small, big = yaml.safe_load((tmp_path / "first" / "candidates.yaml").read_text())["candidates"]
    assert small["prices"] == {"input_usd_per_million_tokens": 7.0, "output_usd_per_million_tokens": 8.0}
    assert (small["model"], small["api_base"], "api_key_env" in small) == ("openai/simulated-weak", "canned", False)
    assert (big["probe_model"], big["prices"]["input_usd_per_million_tokens"]) == ("large", 2.5)
    assert "note: candidate 'big' (openai/mine-2) states no prices. To give them" in done.stderr
    assert done.stderr.count("\nnote: ") == 0


def test_models_of_equal_quality_are_certified_without_a_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feature_cache, "load_encoder", lambda spec, directory=None: FakeEncoder(spec))
    monkeypatch.setattr("router.cli.starting.start.RESAMPLES", 100)
    monkeypatch.setenv("ELLE_CACHE_DIR", str(tmp_path / "cache"))
    rows = [{"prompt": f"What is {number} plus 7?", "reference": str(number + 7)} for number in range(200)]
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    done = start(tmp_path, "--offline", "--max-loss", "0.9")
    assert done.exit_code == 0, done.output
    assert "There is no report to write: the strong model must be better" in done.output
    assert (tmp_path / "first" / "policy.yaml").exists()


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("nowhere.jsonl", None, "nowhere.jsonl"),
        ("folder.jsonl", "", "folder.jsonl"),
        ("empty.jsonl", "", "it holds no rows"),
        ("broken.jsonl", "{", "broken.jsonl"),
        ("scores.jsonl", '{"score": 1}\n', "prompt"),
    ],
)
def test_a_log_that_cannot_be_read_is_named_with_what_is_wrong(
    tmp_path: Path, name: str, text: str | None, message: str
) -> None:
    log = tmp_path / name
    if name == "folder.jsonl":
        log.mkdir()
    elif text is not None:
        log.write_text(text, "utf-8")
    arguments = [
        "start",
        log,
        "--strong",
        "gpt-5",
        "--weak",
        "gpt-5-mini",
        "--out",
        tmp_path / "first",
        "--offline",
        "--yes",
    ]
    done = CliRunner().invoke(cli, [str(argument) for argument in arguments])
    assert done.exit_code == 1
    assert isinstance(done.exception, SystemExit)
    assert done.stderr.startswith("Error: ")
    assert message in done.stderr


def test_a_folder_with_other_files_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "first").mkdir()
    (tmp_path / "first" / "mine.txt").write_text("mine")
    done = start(tmp_path, "--offline")
    assert done.exit_code == 1
    assert "another --out" in done.stderr


def test_simulated_models_are_right_as_often_as_they_say_and_the_weak_one_only_where_the_strong_one_is() -> None:
    for kind in (0, 1):
        prompts = [prompt(2 * number + kind) for number in range(2000)]
        for model, shares in SIMULATED.items():
            share = sum(is_right(model, one) for one in prompts) / len(prompts)
            assert share == pytest.approx(shares[kind], abs=0.03)
        assert all(is_right("simulated-strong", one) for one in prompts if is_right("simulated-weak", one))
    assert RIGHT in canned_text("simulated-strong", "hello") or WRONG in canned_text("simulated-strong", "hello")
    assert "simulated" not in canned_text("gpt-4", "hello")
