"""Fixtures that several test folders share."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from httpx._config import DEFAULT_TIMEOUT_CONFIG

# Before any library looks: nothing in the tests may reach for a network.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
# Also for those tests that import a library before anything of ours.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
# The same runtime on every machine, unless one asks for another.
os.environ.setdefault("ELLE_TORCH_DEVICE", "cpu")

ROOT = Path(__file__).parent.parent
DATA = ROOT.parent / "shared" / "data"

# Only now: these read the environment when they are imported.
from probes.encoders.files import find_encoder  # noqa: E402
from probes.encoders.spec import MINILM_L6  # noqa: E402
from probes.errors import EncoderError  # noqa: E402
from router.client import RouterClient  # noqa: E402
from router.deciding.pipeline import Router  # noqa: E402
from router.identity.admission import current_admission  # noqa: E402
from router.identity.principal import current_principal  # noqa: E402
from router.serving.server import ServerSettings  # noqa: E402
from router.tuning.judging import fit_figures  # noqa: E402
from tests.service import running_service  # noqa: E402

#: Seconds that a test waits for an answer before it fails. A service that has just started imports LiteLLM before its
#: first answer, which takes half a minute on a machine that does ten other things.
PATIENCE_S = 60.0


def pytest_configure(config: pytest.Config) -> None:
    # httpx gives up after five seconds where a test says nothing. It has no public name for that.
    vars(DEFAULT_TIMEOUT_CONFIG).update(dict.fromkeys(("connect", "read", "write", "pool"), PATIENCE_S))
    # On a busy machine one example of a property may take longer than the 200 ms that Hypothesis allows by default.
    hypothesis.settings.register_profile("no clock", deadline=None)
    hypothesis.settings.load_profile("no clock")
    # xdist would begin with the files of many tests. Then the last files are those of few tests that each start
    # processes and wait for them, and at the end one core does nothing.
    if hasattr(config.option, "loadscopereorder"):
        config.option.loadscopereorder = False


@pytest.fixture(scope="session", autouse=True)
def _short_bootstrap() -> Iterator[None]:
    """Let fits in this process draw 100 resamples for the intervals on their cards, not 1,000; no test reads these."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fit_figures, "RESAMPLES", 100)
        yield


@pytest.fixture(autouse=True)
def _nothing_is_left_over() -> Iterator[None]:
    """Put back what a test may change for the whole process: the levels of our loggers, and who calls."""
    loggers = [logging.getLogger(name) for name in ("router", "probes")]
    levels = [one.level for one in loggers]
    variables: list[ContextVar[Any]] = [current_principal, current_admission]
    values = [one.get() for one in variables]
    yield
    for one, level in zip(loggers, levels, strict=True):
        one.setLevel(level)
    for variable, value in zip(variables, values, strict=True):
        variable.set(value)


@pytest.fixture(scope="session")
def _real_encoder() -> None:
    """Stop with a message if the real encoder is missing, because nothing can be tested without it."""
    try:
        find_encoder(MINILM_L6)
    except EncoderError as error:
        pytest.skip(f"the real encoder is not on this machine: {error}")


@pytest.fixture(scope="session")
def address(_real_encoder: None) -> Iterator[str]:
    """Return the address of a service with the embedded default policy."""
    with running_service(ServerSettings(port=0, drain_s=1)) as address:
        yield address


@pytest.fixture(scope="session")
def router(_real_encoder: None) -> Router:
    """Return a router with the embedded default policy in this process."""
    return Router.from_files()


@pytest.fixture
def client(address: str) -> Iterator[RouterClient]:
    with RouterClient(address, timeout_s=PATIENCE_S) as client:
        yield client
