"""Let one file and the environment set every option of a command (`ConfiguredCommand`)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from router.cli.options import PATH, GroupedCommand
from router.errors import ConfigError
from router.quoting import did_you_mean, quoted
from router.yaml_file import read_yaml

#: How the environment variables begin that stand for options: ELLE_PORT stands for --port.
PREFIX = "ELLE_"


class ConfiguredCommand(GroupedCommand):
    """A command each of whose options may also come from an environment variable or from the file of `--config`.

    The command line wins over the environment, the environment over the file, and the file over the default. The
    option `--max-body-bytes` is the variable `ELLE_MAX_BODY_BYTES` and the key `max_body_bytes`. Options are defined
    once, as options of the command.
    """

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        for option in self.configurable():
            option.envvar = option.envvar or PREFIX + option_key(option).upper()
        self.params.append(
            click.Option(
                ["--config"],
                type=PATH,
                is_eager=True,
                expose_value=False,
                envvar=PREFIX + "CONFIG",
                callback=_read_config,
                help="A YAML file that sets options: `port: 50051` is --port 50051. Options and environment variables "
                "win over it.",
            )
        )

    def configurable(self) -> list[click.Option]:
        """Return the options that the file and the environment may set."""
        return [one for one in self.params if isinstance(one, click.Option) and one.name != "config"]


def option_key(option: click.Option) -> str:
    """Return the key of an option in the file: the name of its flag with underscores."""
    return max(option.opts, key=len).lstrip("-").replace("-", "_")


def _read_config(ctx: click.Context, _: click.Parameter, file: Path | None) -> None:
    if file is None or ctx.resilient_parsing:
        return
    found = read_yaml(file, "configuration file")
    if found is not None and not isinstance(found, dict):
        raise ConfigError(f"configuration file {file} must hold keys with values, such as `port: 50051`.")
    command = ctx.command
    assert isinstance(command, ConfiguredCommand)  # noqa: S101  (only such a command has this option)
    options = {option_key(option): option for option in command.configurable()}
    ctx.default_map = dict(ctx.default_map or {}) | _checked(ctx, file, found or {}, options)


def _checked(
    ctx: click.Context, file: Path, found: Mapping[Any, Any], options: Mapping[str, click.Option]
) -> dict[str, Any]:
    """Return the values of the file by the names of the parameters. Raises ConfigError for a wrong key or value."""
    values = {}
    for key, value in found.items():
        option = options.get(key) if isinstance(key, str) else None
        if option is None:
            hint = did_you_mean(str(key), options) or f" The keys are {', '.join(sorted(options))}."
            raise ConfigError(f"configuration file {file}: there is no key {quoted(key)}.{hint}")
        if value is None:
            continue
        value = _as_written(file, option, value)
        try:
            option.type_cast_value(ctx, value)
        except click.BadParameter as error:
            raise ConfigError(f"configuration file {file}: {key} cannot be {quoted(value)}: {error.message}") from None
        values[option.name or key] = value
    return values


def _as_written(file: Path, option: click.Option, value: Any) -> Any:
    """Return a value as the command line would write it. Paths are relative to the folder of the file."""
    key = option_key(option)
    if option.multiple:
        return [_one(file, option, one) for one in (value if isinstance(value, list) else [value])]
    if option.is_flag and option.is_bool_flag:
        if not isinstance(value, bool):
            raise ConfigError(f"configuration file {file}: {key} must be true or false, got {quoted(value)}.")
        return value
    return _one(file, option, value)


def _one(file: Path, option: click.Option, value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ConfigError(f"configuration file {file}: {option_key(option)} must be one value, got {quoted(value)}.")
    text = str(value)
    # An option that takes a path or a URL says so where its help shows what it takes.
    is_path = isinstance(option.type, click.Path) or ((option.metavar or "").endswith("|URL") and "://" not in text)
    return str(file.parent / text) if is_path else text
