"""Fixtures of the fault tests: services in front of an upstream that fails as told, one for the whole folder."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.router.answering.faults.faults_stack import FAULTS, THROUGH_LITELLM, serving_faults
from tests.router.fault_policies import BREAKS_OFF
from tests.router.faults import FaultyUpstream


@pytest.fixture(scope="package")
def stack(_real_encoder: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, FaultyUpstream]]:
    """Return the service before upstreams that get the caller's own body."""
    with serving_faults(tmp_path_factory.mktemp("policies"), FAULTS, "openai") as found:
        yield found


@pytest.fixture(scope="package")
def litellm_world(
    _real_encoder: None, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, FaultyUpstream]]:
    """Return the service before upstreams that LiteLLM calls, for what it makes of their faults."""
    faults = ["ok", *BREAKS_OFF, *(fault for fault, _ in THROUGH_LITELLM)]
    with serving_faults(tmp_path_factory.mktemp("policies"), faults, "hosted_vllm") as found:
        yield found
