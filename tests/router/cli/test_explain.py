"""`elle explain`: text for people and JSON for machines, from every kind of input, and clear words for odd ones."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from router.cli.main import cli
from router.policies.loading import EXAMPLE_POLICY

pytestmark = pytest.mark.usefixtures("_real_encoder")

PROOF = "Determine all functions f from R to R with f(x + f(y)) = f(x) + y for all real x and y."


def run(*arguments: object, given: bytes | None = None) -> Result:
    return CliRunner().invoke(cli, ["explain", *map(str, arguments)], input=given)


def found(*arguments: object, given: bytes | None = None) -> Any:
    result = run(*arguments, "--json", given=given)
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_people_get_a_sentence_and_parts() -> None:
    result = run("Good morning! How are you today?")
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert lines[0] == "economy (openai/economy) answers"
    assert lines[1].startswith("Greeting or small talk (")
    assert "well within the economy tier: standard is expected to be better by 0.0" in lines[1]
    words = " ".join(line.strip() for line in lines[3:])
    for text in ("all known kinds", "greeting or small talk *", "this prompt within its kind", "sum", "assumed"):
        assert text in words
    assert "-0.000" not in words


def test_machines_get_the_record_and_parts_that_add_up() -> None:
    answer = found(PROOF)
    decision = answer["decision"]
    assert answer["reason"].startswith("Proof or functional equation (")
    assert answer["note"] == ""
    assert math.fsum(part["gain"] for part in answer["parts"]) == pytest.approx(decision["gain"], abs=1e-12)
    for one in decision["candidates"]:
        total = math.fsum(part["risk"][one["candidate"]] for part in answer["parts"])
        assert total == pytest.approx(one["risk"], abs=1e-12)
    base, stronger = answer["compared"]
    risks = {one["candidate"]: one["risk"] for one in decision["candidates"]}
    assert risks[base] - risks[stronger] == decision["gain"]
    assert [part["what"] for part in answer["parts"]][1:4] == [kind["name"] for kind in decision["kinds"]["nearest"]]


def test_text_and_chat_may_come_from_stdin_and_mean_the_same(tmp_path: Path) -> None:
    plain = found(PROOF)
    body = json.dumps({"model": "x", "messages": [{"role": "user", "content": PROOF}]}).encode()
    (tmp_path / "chat.json").write_bytes(body)
    ways = [
        found("-", given=PROOF.encode()),
        found("-", given=PROOF.encode("utf-16")),
        found("--chat", "-", given=body),
        found("--chat", tmp_path / "chat.json"),
    ]
    for way in ways:
        assert way["parts"] == plain["parts"]
        assert way["reason"] == plain["reason"]


def test_a_probe_without_kinds_is_explained_and_says_so() -> None:
    result = run("What is 2 + 2?", "--policy", EXAMPLE_POLICY)
    assert result.exit_code == 0
    assert "Unlike the prompts of the fit, so that the safe default gpt-4-turbo answers" in result.stdout
    assert "knows no kinds of request" in result.stdout
    answer = found("What is 2 + 2?", "--policy", EXAMPLE_POLICY)
    assert (answer["parts"], len(answer["compared"])) == ([], 2)


def test_a_prompt_of_no_known_kind_is_said_to_be_so() -> None:
    answer = found("ㅋㅋㅋ zz 999 ∂∂∂∂ qq ###")
    assert answer["decision"]["kinds"]["known"] is False
    assert answer["reason"].startswith("Of none of the known kinds")
    assert [part["what"] for part in answer["parts"]] == ["all known kinds", "this prompt"]
    assert "kinds: none of the known ones; the nearest are " in run("ㅋㅋㅋ zz 999 ∂∂∂∂ qq ###").stdout


def test_what_was_not_judged_is_said(tmp_path: Path) -> None:
    pinned = run("Hello", "--pin", "standard")
    assert "The request asks for standard." in pinned.stdout
    assert "not judged" in pinned.stdout
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    body = json.dumps({"messages": [{"role": "user", "content": [image]}]}).encode()
    assert "Only frontier may answer (economy: cannot handle image" in run("--chat", "-", given=body).stdout


@pytest.mark.parametrize(
    ("arguments", "given", "status", "message"),
    [
        (("",), None, 1, "some text"),
        ((), None, 2, "give either TEXT or --chat FILE"),
        (("-",), b"", 1, "some text"),
        (("-",), b"x" * 10_000_000, 1, "at most 524,288 bytes"),
        (("-",), b"x" * 34_000_000, 1, "at most 33,554,432 bytes"),
        (("-",), b"\xff\xfe\xff", 1, "the text on stdin cannot be read"),
        (("-",), b"caf\xe9", 1, "must be text in UTF-8"),
        (("--chat", "-"), b"[]", 1, "must hold a JSON object with a list `messages`"),
        (("--chat", "-"), b'{"messages": [7]}', 1, "messages[0]"),
        (("--chat", "-"), b'{"messages": [', 1, "must be a JSON file"),
        (("--chat", "-"), b'{"messages": "hello"}', 1, "a list `messages`"),
        (("--chat", "-"), b"[" * 100_000, 1, "nested too deeply"),
        (("hello", "--policy", "none.yaml"), None, 1, "none.yaml does not exist"),
        (("hello", "--pin", "nobody"), None, 1, "nobody"),
    ],
)
def test_odd_input_is_the_callers_fault_and_says_what_to_do(
    arguments: tuple[str, ...], given: bytes | None, status: int, message: str
) -> None:
    result = run(*arguments, given=given)
    assert result.exit_code == status, result.output
    assert message in result.stderr
    assert len(result.stderr) < 600
    assert result.stdout == ""
