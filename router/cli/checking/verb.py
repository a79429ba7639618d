"""`elle doctor`: check an installation for a service, and say what to do."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

import click
from rich.text import Text

from router.cli.checking import installation, machine, records, service
from router.cli.checking.finding import Check, Finding, Level, WantedService, fail, run_checks
from router.cli.checking.policies import PolicyChecks
from router.cli.options import JSON
from router.cli.output import INCOMPLETE, print_json, stdout
from router.cli.running.config_file import PREFIX, option_key
from router.cli.running.serve import serve_verb, server_settings
from router.errors import RouterError

#: The environment variables of ours that stand for no option of `elle serve`.
OTHER_VARIABLES = (
    "ELLE_ENCODER_DIR",
    "ELLE_ENCODER_RUNTIME",
    "ELLE_TORCH_DEVICE",
    "ELLE_ADMIN_TOKEN",
    "ELLE_CACHE_DIR",
)

_STYLES = {Level.OK: "green", Level.WARN: "yellow", Level.FAIL: "bold red"}


@click.command(
    "doctor",
    short_help="Check an installation, and say what to do.",
    context_settings={"ignore_unknown_options": True},
)
@click.argument("serve_options", nargs=-1, type=click.UNPROCESSED, metavar="[OPTIONS OF elle serve]...")
@JSON
def doctor_verb(serve_options: Sequence[str], as_json: bool) -> None:
    """Check whether `elle serve` with the same options works here, and say what to do if it does not.

    It takes every option of `elle serve`, such as --policy my.yaml or --config elle.yaml, and its environment
    variables. It looks at the packages, the encoder's runtime and files, the policies with their probes, prices,
    certificates and keys, the ports, TLS, tokens, the ledger and the store, the clock, memory, cores and open files.

    Nothing is sent, except that it connects to a PostgreSQL database that --ledger or --store names. Nothing is
    written, except that the encoder is exported into the cache if it is not there.

    Each finding is ok, warn (the service starts, and somebody should look) or fail (it does not start, or cannot do
    what it was asked for). The exit status is 3 if anything fails, and 0 otherwise.
    """
    found = list(findings(serve_options))
    counts = Counter(one.level for one in found)
    if as_json:
        print_json(
            {"counts": {level.value: counts[level] for level in Level}, "findings": [one.to_dict() for one in found]}
        )
    else:
        _say(found, counts)
    if counts[Level.FAIL]:
        raise SystemExit(INCOMPLETE)


def findings(serve_options: Sequence[str]) -> Iterator[Finding]:
    """Yield what all checks find for a service with these options of `elle serve`."""
    try:
        with serve_verb.make_context("elle serve", list(serve_options)) as context:
            options = dict(context.params)
            workers = options.pop("workers")
            options.pop("worker_timeout_s")
            wanted = WantedService(server_settings(**options), workers)
    except click.ClickException as error:
        yield fail("options", error.format_message())
    except RouterError as error:
        yield fail("options", str(error))
    else:
        yield from run_checks(_checks(), wanted)
        return
    yield fail("options", "nothing else was checked, because it depends on the options.", "Mend the options first.")


def _checks() -> Iterator[tuple[str, Check]]:
    policies = PolicyChecks(_variables())
    yield "python", installation.check_python
    yield "packages", installation.check_packages
    yield "runtime", installation.check_runtime
    yield "cache", installation.check_cache
    yield "clock", machine.check_clock
    yield "cores", machine.check_cores
    yield "memory", machine.check_memory
    yield "open files", machine.check_files
    yield "policies", policies.check_policies
    yield "encoder", policies.check_encoder
    yield "certificates", policies.check_certificates
    yield "candidates", policies.check_candidates
    yield "variables", policies.check_variables
    yield "ports", service.check_ports
    yield "exposure", service.check_exposure
    yield "TLS", service.check_tls
    yield "tokens", service.check_tokens
    yield "web tokens", service.check_keys
    yield "traces", service.check_traces
    yield "ledger", records.check_ledger
    yield "state", records.check_state
    yield "store", records.check_store
    yield "rollout", policies.check_canary
    yield "rollout", records.check_drift


def _variables() -> set[str]:
    """Return the names of all environment variables ELLE_... that elle reads."""
    return {
        *OTHER_VARIABLES,
        PREFIX + "CONFIG",
        *(PREFIX + option_key(option).upper() for option in serve_verb.configurable()),
    }


def _say(found: Sequence[Finding], counts: Counter[Level]) -> None:
    console = stdout()
    width = max(len(one.check) for one in found)
    for one in found:
        line = Text.assemble((f"{one.level.value:4}", _STYLES[one.level]), f"  {one.check:{width}}  {one.says}")
        console.print(line, soft_wrap=True)
        if one.do:
            console.print(Text(f"{'':{width + 8}}{one.do}"), soft_wrap=True)
    console.print(f"{counts[Level.OK]} ok, {counts[Level.WARN]} to look at, {counts[Level.FAIL]} failed.")
