"""The table of refused parameters says what LiteLLM says, and is asked without LiteLLM."""

from __future__ import annotations

import json

import pytest

from router.policies.candidates.known_parameters import FILE, known_parameters, longest_beginning, refused_by
from scripts.known_parameters import SAMPLES, shortened
from tests.conftest import ROOT


@pytest.mark.parametrize(
    ("model", "refused", "taken"),
    [
        ("openai/gpt-5", {"temperature", "top_p", "logprobs", "max_tokens"}, {"seed", "n", "reasoning_effort"}),
        ("openai/gpt-4o", {"reasoning_effort", "verbosity"}, {"temperature", "stop", "max_tokens"}),
        ("anthropic/claude-opus-4-5", {"n", "seed", "logprobs", "frequency_penalty"}, {"temperature", "stop"}),
        ("mistral/mistral-large-latest", {"n", "logprobs"}, {"temperature", "seed"}),
        ("gpt-5", {"temperature"}, {"seed"}),
        ("hosted_vllm/anything", set(), {"temperature", "seed", "n"}),
        ("nobody/knows-me", set(), {"temperature"}),
        ("nobody-knows-me", set(), {"temperature"}),
    ],
)
def test_known_models(model: str, refused: set[str], taken: set[str]) -> None:
    found = refused_by(model, asked_directly=False)
    assert refused <= found
    assert not taken & found


def test_a_version_of_a_known_model_is_that_model() -> None:
    first = refused_by("openai/gpt-5", asked_directly=True)
    assert refused_by("openai/gpt-5-2025-08-07", asked_directly=True) == first
    assert refused_by("openai/gpt-50", asked_directly=True) == frozenset()


def test_a_model_that_nobody_knows_refuses_only_what_litellm_refuses_to_send() -> None:
    assert refused_by("openai/my-own", asked_directly=True) == frozenset()
    assert "verbosity" in refused_by("openai/my-own", asked_directly=False)


def test_the_longest_name_counts_and_ends_where_a_word_ends() -> None:
    known = {"a", "a-b", "a-bc"}
    found = [longest_beginning(name, known) for name in ("a-b", "a-b-c", "a-bcd", "a.1", "ab", "b", "")]
    assert found == ["a-b", "a-b", "a", "a", None, None, None]


def test_the_short_table_says_of_every_model_what_the_long_one_does() -> None:
    models = {"a": ("n",), "a-1": ("n",), "a-2": (), "a-2-x": (), "a-2-y": ("n",), "b": (), "c-1": ("n",)}
    short = shortened(models, ())
    assert short == {"a": ("n",), "a-2": (), "a-2-y": ("n",), "c-1": ("n",)}


def test_the_table_is_small_and_names_only_parameters_that_were_tried() -> None:
    table = known_parameters()
    assert table.names <= SAMPLES.keys() | {"max_tokens"}
    assert {"openai", "openrouter", "mistral", "hosted_vllm", "ollama_chat", "gemini", "databricks", "minimax"} <= (
        table.passes_fields
    )
    assert {"mistral", "deepseek", "azure_ai", "sambanova", "openrouter", "hosted_vllm"} <= table.passes_parts
    # The format of these is not OpenAI's.
    assert not {"anthropic", "bedrock", "vertex_ai"} & table.passes_parts


def test_the_table_was_made_of_the_litellm_that_is_pinned() -> None:
    made_of = json.loads(FILE.read_text("utf-8"))["litellm"]
    assert f"litellm=={made_of}" in (ROOT / "constraints.txt").read_text("utf-8").splitlines(), (
        "another LiteLLM is pinned: run `python -m scripts.known_parameters`"
    )
    assert f"LiteLLM ({made_of})" in (ROOT / "docs" / "candidates.md").read_text("utf-8")


def test_litellm_says_the_same_today() -> None:
    litellm = pytest.importorskip("litellm", reason="LiteLLM is not installed; `pip install 'elle-router[dispatch]'`")
    for model in ("gpt-5", "gpt-4o", "o3-mini"):
        for name in ("temperature", "n", "logprobs", "stop", "reasoning_effort", "top_p"):
            try:
                litellm.utils.get_optional_params(model=model, custom_llm_provider="openai", **{name: SAMPLES[name]})
                is_refused = False
            except litellm.UnsupportedParamsError:
                is_refused = True
            assert (name in refused_by(f"openai/{model}", asked_directly=True)) == is_refused, (model, name)
