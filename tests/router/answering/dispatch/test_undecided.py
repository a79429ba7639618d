"""Counts of tokens and embeddings come from the candidate that was named, asked once."""

from __future__ import annotations

from pathlib import Path

import pytest
from starlette.responses import JSONResponse

from router import errors
from router.answering.undecided.single_calls import counted_tokens, embeddings_of
from router.values import ApiFormat, RouteQuery
from tests.router.answering.dispatch.dispatch_stack import Upstream, candidate, dispatching

pytestmark = pytest.mark.asyncio(loop_scope="package")

MESSAGE = RouteQuery(({"role": "user", "content": "hello"},), api_format=ApiFormat.ANTHROPIC_MESSAGES)
EMBEDDING = RouteQuery((), api_format=ApiFormat.OPENAI_EMBEDDINGS, parameters={"input": "hello"})


async def test_tokens_are_counted_by_the_named_candidate(folder: Path, upstream: Upstream) -> None:
    base = upstream.url.removesuffix("/v1")
    asked = [candidate(name, base, model=f"anthropic/real-{name}") for name in ("small", "large")]
    async with dispatching(folder, *asked) as stack:
        assert await counted_tokens(stack.dispatcher, MESSAGE, "test", "large") == {"input_tokens": 14}
        assert [body["model"] for body in upstream.bodies] == ["real-large"]
        upstream.answer = JSONResponse({"error": {"message": "no"}}, 500)
        with pytest.raises(errors.UpstreamUnavailableError):
            await counted_tokens(stack.dispatcher, MESSAGE, "test", "small")
        upstream.answer = JSONResponse({"input_tokens": "many"})
        with pytest.raises(errors.UpstreamUnavailableError, match="no count of tokens"):
            await counted_tokens(stack.dispatcher, MESSAGE, "test", "small")
    assert len(upstream.sent) == 3


async def test_embeddings_come_from_the_named_candidate_if_it_serves_any(folder: Path, upstream: Upstream) -> None:
    small = candidate("small", upstream.url, speaks=["embeddings"])
    async with dispatching(folder, small, candidate("large", upstream.url)) as stack:
        found = await embeddings_of(stack.dispatcher, EMBEDDING, "test", "small", timeout_s=20)
        assert found == {"data": [{"embedding": [0.5]}]}
        assert [body["model"] for body in upstream.bodies] == ["real-small"]
        with pytest.raises(errors.NoEligibleCandidateError, match="serves no embeddings"):
            await embeddings_of(stack.dispatcher, EMBEDDING, "test", "large")
        with pytest.raises(errors.UpstreamTimeoutError):
            await embeddings_of(stack.dispatcher, EMBEDDING, "test", "small", timeout_s=0)
    assert len(upstream.sent) <= 2
