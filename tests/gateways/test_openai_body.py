"""Chat bodies become queries, names become policies, and only `model` is exchanged."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.errors import InvalidRequestError, UnknownModelError
from router.gateways.http.request_body import (
    ChatBody,
    model_names,
    overrides_from_model,
    query_from_body,
    upstream_model,
)
from router.policies.loading import load_policies
from router.values import Overrides
from tests.fakes import write_policy

MESSAGES = [{"role": "user", "content": "hello"}]


@pytest.fixture(scope="module")
def policies(tmp_path_factory):
    folder = tmp_path_factory.mktemp("policies")
    profiles = {name: {"rule": {"kind": "gain", "thresholds": [at]}} for name, at in (("economy", 0.5), ("quality", 0))}
    paths = [write_policy(folder, name="work", profiles=profiles), write_policy(folder, name="play-time")]
    return {policy.ref.name: policy for policy in load_policies(paths)}


@pytest.mark.parametrize(
    ("model", "overrides"),
    [
        ("elle/work", Overrides(policy="work")),
        ("elle/work:economy", Overrides(policy="work:economy")),
        ("elle/play-time", Overrides(policy="play-time")),
        ("large", Overrides(policy="work", pin="large")),
        ("router-mf-0.11593", Overrides(min_gain=0.11593)),
        ("router-causal_llm-.5", Overrides(min_gain=0.5)),
        ("router-play-time-0.2", Overrides(policy="play-time", min_gain=0.2)),
        ("router-work:quality-1", Overrides(policy="work:quality", min_gain=1.0)),
    ],
)
def test_each_kind_of_model_name_asks_for_what_it_says(policies, model, overrides):
    assert overrides_from_model(model, policies) == overrides


@pytest.mark.parametrize(
    "model",
    ["gpt-4o", "elle/", "elle/nobody", "elle/work:balanced", "router-random-0.5", "router-0.5", "work", "ELLE/work"],
)
def test_an_unknown_name_is_refused_with_the_list_of_all(policies, model):
    with pytest.raises(UnknownModelError, match="elle/work, elle/work:economy") as caught:
        overrides_from_model(model, policies)
    assert all(name in str(caught.value) for name in model_names(policies))
    assert caught.value.field == "model"


@pytest.mark.parametrize("threshold", ["1.01", "2", "-0.1", "nan", "1e-3", "", "0_1", "١"])
def test_a_threshold_out_of_range_is_refused(policies, threshold):
    # "-0.1" reads as the name `mf-` with 0.1: unknown, and refused as such.
    with pytest.raises((InvalidRequestError, UnknownModelError)):
        overrides_from_model(f"router-mf-{threshold}", policies)


def test_a_candidate_called_like_an_alias_is_the_candidate(tmp_path):
    path = write_policy(tmp_path, names=("router-mf-0.5", "large"))
    policies = {policy.ref.name: policy for policy in load_policies([path])}
    assert overrides_from_model("router-mf-0.5", policies) == Overrides(policy="test", pin="router-mf-0.5")


def test_all_other_fields_are_handed_on_untouched(policies):
    body = {"model": "elle/work", "messages": MESSAGES, "stream": True, "n": 2, "x_unknown": {"a": [1.0]}}
    query = query_from_body(body, {}, policies)
    assert list(query.messages) == MESSAGES
    assert query.parameters == {"n": 2, "x_unknown": {"a": [1.0]}}
    assert query.session_id == ""


def test_an_anthropic_body_keeps_its_system_prompt_and_tools(policies):
    body = {
        "model": "elle/work",
        "max_tokens": 100,
        "system": [{"type": "text", "text": "be brief"}],
        "messages": [{"role": "user", "content": [{"type": "text", "text": "hello"}]}],
        "tools": [{"name": "look", "input_schema": {"type": "object"}}],
    }
    query = query_from_body(body, {}, policies)
    assert query.messages[0]["content"][0]["text"] == "hello"
    assert set(query.parameters) == {"max_tokens", "system", "tools"}


@pytest.mark.parametrize(
    ("headers", "extra", "session"),
    [
        ({"x-session-id": "a"}, {"session_id": "c"}, "a"),
        ({}, {"metadata": {"session_id": "d"}}, "d"),
        ({}, {}, ""),
    ],
)
def test_sessions_are_known_by_headers_and_fields(policies, headers, extra, session):
    assert (
        query_from_body({"model": "elle/work", "messages": MESSAGES} | extra, headers, policies).session_id == session
    )


@pytest.mark.parametrize(
    "body", [{}, {"model": 3}, {"model": ""}, {"model": "elle/work"}, {"model": "elle/work", "messages": "x"}]
)
def test_a_body_without_model_or_messages_is_refused(policies, body):
    with pytest.raises(InvalidRequestError) as caught:
        query_from_body(body, {}, policies)
    assert caught.value.field in {"model", "messages"}


@pytest.mark.parametrize(("misspelled", "meant"), [("mesages", "messages"), ("modle", "model")])
def test_a_misspelled_field_is_named_where_the_field_is_missing(policies, misspelled, meant):
    body = {"model": "elle/work", "messages": MESSAGES}
    body[misspelled] = body.pop(meant)
    with pytest.raises(InvalidRequestError, match=f"Did you mean {meant} by '{misspelled}'"):
        query_from_body(body, {}, policies)


def test_a_body_is_not_copied_to_exchange_its_model():
    raw = json.dumps({"model": "m", "messages": [], "picture": "x" * 100_000}).encode()
    before, _, behind = ChatBody.parse(raw).written.with_model(b"1")
    assert before.obj is behind.obj is raw


def written_with(body, model):
    return b"".join(body.written.with_model(json.dumps(model).encode()))


def test_only_the_model_changes_to_the_byte():
    raw = (
        '{ "messages" : [{"content":"\\u00fc ü \\ud83d","model":"inner"}],\n "model"\t:  "elle/x" , "t":1.0,"n":1e2 }\n'
    )
    assert written_with(ChatBody.parse(raw.encode()), 'a"b') == raw.replace('"elle/x"', '"a\\"b"').encode()


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text(), _JSON, max_size=5), st.text(), st.integers(0, 2), st.booleans())
def test_any_object_is_read_as_json_reads_it_and_rewritten_in_one_place(body, model, indent, ascii_only):
    body = body | {"model": model}
    raw = json.dumps(body, indent=indent or None, ensure_ascii=ascii_only).encode(errors="surrogatepass")
    if b"\xed\xa0" in raw or b"\xed\xb0" in raw:
        return
    parsed = ChatBody.parse(raw)
    assert parsed.fields == body
    assert json.loads(written_with(parsed, "new")) == body | {"model": "new"}


@pytest.mark.parametrize(
    "raw",
    [
        *(b"", b"[]", b'"x"', b"{", b'{"a":1,}', b'{"a" 1}', b"{1:2}", b'{"a":1}x', b'{"a":NaN}', b'{"a":\xff}'),
        *(b'{"model":"a","model":"b"}', b'{"a":' + b"[" * 100_000, b'{"a":' + b"9" * 5000 + b"}"),
    ],
)
def test_what_is_no_json_object_is_refused(raw):
    with pytest.raises(InvalidRequestError, match="the body must be a JSON object"):
        ChatBody.parse(raw)


def test_the_upstream_knows_a_model_without_its_provider():
    assert upstream_model("openai/gpt-4o") == "gpt-4o"
    assert upstream_model("hosted_vllm/meta-llama/Llama-3-8B") == "meta-llama/Llama-3-8B"
    assert upstream_model("gpt-4o") == "gpt-4o"


def test_a_byte_order_mark_before_the_body_is_read_over_and_not_handed_on():
    written = b'{"model": "auto", "messages": []}'
    body = ChatBody.parse(b"\xef\xbb\xbf" + written)
    assert body.fields == {"model": "auto", "messages": []}
    assert b"".join(body.written.with_model(b'"gpt"')) == written.replace(b'"auto"', b'"gpt"')
    for odd in (b"\xef\xbb\xbf\xef\xbb\xbf" + written, written + b"\xef\xbb\xbf"):
        with pytest.raises(InvalidRequestError, match="the body must be a JSON object in UTF-8"):
            ChatBody.parse(odd)
