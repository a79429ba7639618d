"""The options that say how a service is watched: its metrics, its log and its traces (`watching_options`)."""

from __future__ import annotations

from typing import Any

import click

from router.cli.options import with_options

#: The names under which `elle serve` receives these options.
NAMES = (
    *("admin_port", "admin_host", "metrics_port"),
    *("log_format", "log_level", "log_decisions", "otlp_endpoint", "trace_content"),
)

_SERVING = (
    click.option(
        "--admin-port",
        type=click.IntRange(0, 65535),
        help="Also serve the operator's page on this port (extra admin); 0 takes any free one. With --tokens or --jwks "
        "a token with the scope admin is needed, as the password that the browser asks for.",
    ),
    click.option(
        "--admin-host",
        metavar="ADDRESS",
        default="127.0.0.1",
        show_default=True,
        help="The address of the operator's page.",
    ),
    click.option(
        "--metrics-port",
        type=click.IntRange(0, 65535),
        help="Also serve Prometheus metrics on this port, for all processes together; 0 takes any free one. "
        "With --tls-cert they are served over TLS.",
    ),
    click.option(
        "--log-format",
        default="console",
        show_default=True,
        type=click.Choice(["console", "json"]),
        help="How the log on stderr is written: as lines for people, or as one JSON object on each line.",
    ),
    click.option(
        "--log-level",
        type=click.Choice(["debug", "info", "warning", "error"]),
        help="The least level of the log that is written; of libraries warnings and errors only. Default: warning; "
        "info with `elle -v`.",
    ),
    click.option(
        "--log-decisions",
        is_flag=True,
        help="Also write a line for each decision, refusal and answer: ids, names and numbers, but no text.",
    ),
    click.option(
        "--otlp-endpoint",
        metavar="URL",
        help="Send traces over OTLP to this collector, such as http://localhost:4317 (extra otel).",
    ),
    click.option(
        "--trace-content",
        is_flag=True,
        help="Put the messages of requests into the traces. Without it they hold no text of a caller.",
    ),
)


#: Gives a command the options that say how a service is watched.
watching_options = with_options(*_SERVING)


def watch_settings(options: dict[str, Any]) -> dict[str, Any]:
    """Take these options out of `options`, and return what they set in `ServerSettings`."""
    from router.observing.logs import LogSettings
    from router.observing.traces import TraceSettings

    asked = {name: options.pop(name) for name in NAMES}
    if asked["trace_content"] and not asked["otlp_endpoint"]:
        raise click.UsageError("--trace-content needs --otlp-endpoint.")
    is_verbose = click.get_current_context().find_root().params.get("verbose")
    level = asked["log_level"] or ("info" if is_verbose else "warning")
    log = LogSettings(asked["log_format"], level.upper(), asked["log_decisions"])
    traces = TraceSettings(asked["otlp_endpoint"], asked["trace_content"]) if asked["otlp_endpoint"] else None
    ports = {name: asked[name] for name in ("admin_port", "admin_host", "metrics_port")}
    return {**ports, "log": log, "traces": traces}
