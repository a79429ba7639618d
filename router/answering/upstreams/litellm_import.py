"""Import LiteLLM, once and whole, with the settings under which it fetches nothing from the network."""

from __future__ import annotations

import contextlib
import functools
import gc
import importlib
import logging
import os
import sys
import threading
from collections.abc import Iterator
from typing import Any

from router.errors import DispatchNotInstalledError

log = logging.getLogger(__name__)

#: Settings of LiteLLM by which it does not fetch tables from the network, at import or with a provider's first call.
_LOCAL_TABLES = ("LITELLM_LOCAL_MODEL_COST_MAP", "LITELLM_LOCAL_ANTHROPIC_BETA_HEADERS", "LITELLM_LOCAL_BLOG_POSTS")

#: The setting by which it does not look for keys in every error, which is one long step, during which no
#: other thread runs. Its log is off (below), ours masks keys itself, and what callers are told has been searched.
_NO_SEARCH = "LITELLM_DISABLE_REDACT_SECRETS"

#: Modules that LiteLLM imports when it has something to tell of a call, at the latest when one fails.
_FOR_ERRORS = ("litellm._service_logger", "litellm.proxy.guardrails.exception_utils", "fastapi", "starlette.exceptions")

#: Two threads that import at once would see each other's modules half made.
_IMPORTING = threading.Lock()


@functools.cache
def import_litellm() -> Any:
    """Return the module `litellm`. The first call takes seconds, and calls of other threads wait for it.

    Raises DispatchNotInstalledError if it cannot be imported. The next call tries again.
    """
    for name in (*_LOCAL_TABLES, _NO_SEARCH):
        os.environ.setdefault(name, "True")
    with _IMPORTING:
        try:
            with _whole_or_not_at_all(), _no_collection():
                litellm: Any = importlib.import_module("litellm")
                importlib.import_module("router.answering.upstreams.bounded_httpx")
                _import_what_errors_need()
        except ModuleNotFoundError as error:
            missing = "which is" if error.name == "litellm" else f"whose package {error.name} is"
            raise DispatchNotInstalledError(f"answering needs LiteLLM, {missing} not installed.") from error
        except Exception as error:
            log.exception("LiteLLM cannot be imported")
            raise DispatchNotInstalledError(
                "answering needs LiteLLM, which is installed but cannot be imported; the log says why."
            ) from error
        litellm.suppress_debug_info = True
        litellm.turn_off_message_logging = True
        # Streams whose provider counts no tokens are counted here; for some models LiteLLM asks a hub for a tokenizer.
        litellm.disable_hf_tokenizer_download = True
        # What they log of a call may hold its prompt, or a password in a URL; their errors reach us as exceptions.
        for name in ("LiteLLM", "LiteLLM Router", "LiteLLM Proxy"):
            logging.getLogger(name).setLevel(logging.CRITICAL)
        logging.getLogger("httpx").setLevel(logging.WARNING)
        return litellm


def _import_what_errors_need() -> None:
    """Import what LiteLLM would import when a call fails for the first time, and never look again for what is missing.

    LiteLLM looks for FastAPI with every error, to see whether the error is one of its proxy.
    """
    for name in _FOR_ERRORS:
        try:
            importlib.import_module(name)
        except ImportError:
            # Python's own mark of a module that must not be imported.
            sys.modules.setdefault(name, None)  # type: ignore[arg-type]


@contextlib.contextmanager
def _whole_or_not_at_all() -> Iterator[None]:
    """Forget the modules of LiteLLM if an error ends its import within this context.

    Python forgets only the module that failed. Those that it had imported before would stay and refer to a package that
    is not there, so that the next import would make LiteLLM of two halves.
    """
    before = frozenset(sys.modules)
    try:
        yield
    except BaseException:
        for name in frozenset(sys.modules) - before:
            if name.partition(".")[0] == "litellm":
                del sys.modules[name]
        raise


@contextlib.contextmanager
def _no_collection() -> Iterator[None]:
    """Switch the garbage collector off within this context, and then exempt the imported objects from it.

    The import makes half a million objects, which stay. The collector looks through all of them again and again, a
    tenth of a second at a time, during which no other thread runs.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if enabled:
            gc.enable()
