"""Options that several verbs of `elle` share, and the titles under which `--help` lists the options of a long verb."""

from __future__ import annotations

import functools
import getpass
import math
import os
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, TypeVar, cast

import click
from click.shell_completion import CompletionItem

from probes.bounded.files import shown
from probes.bounded.text import os_fault
from probes.errors import DataError
from probes.shards.choosing import ENGINES, chosen_engine
from router.cli.output import remember_json

_Function = TypeVar("_Function", bound=Callable[..., Any])

#: What click asks for the values that begin with the text that is typed so far.
Completer = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]


def names_in(module: str, name: str, *, files: bool = False) -> Completer:
    """Return what completes a value by the names that `name` in `module` lists. It is imported when a shell asks.

    files: whether the value may also be the path of a file.
    """

    def complete(_: click.Context, __: click.Parameter, incomplete: str) -> list[CompletionItem]:
        found = getattr(import_module(module), name)
        known = [one for one in (found() if callable(found) else found) if one.startswith(incomplete)]
        # Files come first: click's script for bash forgets what came before them, and offers them if nothing follows.
        return [*([CompletionItem(incomplete, type="file")] if files else []), *map(CompletionItem, known)]

    return complete


#: The formats of logs and of exports that `elle import` reads.
FORMAT_NAMES = names_in("router.tuning.outcomes.adapters.formats", "FORMATS")
FORMAT_NAMES_OR_FILES = names_in("router.tuning.outcomes.adapters.formats", "FORMATS", files=True)
ENCODER_NAMES = names_in("probes.encoders.spec", "BUILTIN_SPECS", files=True)
GRADER_NAMES = names_in("router.collecting.graders.naming", "grader_names")


class _SystemPath(click.Path):
    """A path that the system can have: one that is empty or too long, or holds NUL, is wrong usage."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        # Python takes an empty path, which is what a shell makes of a variable that is not set, for this folder.
        if not str(value):
            self.fail("it is empty; give a path.", param, ctx)
        path = Path(str(super().convert(value, param, ctx)))
        try:
            path.exists()
        except (OSError, ValueError) as error:
            self.fail(f"{shown(str(value))!r} cannot be a path: {os_fault(error)}.", param, ctx)
        return path


PATH = _SystemPath(path_type=Path)


class FiniteRange(click.FloatRange):
    """A number within bounds. NaN lies within all bounds, because it compares with nothing; here it is wrong usage."""

    name = "number"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the value as a number."""
        if not math.isfinite(number := super().convert(value, param, ctx)):
            self.fail(f"it must be a finite number, got {number}.", param, ctx)
        return number


def seed_option(help_text: str) -> Callable[[Any], Any]:
    """Return a decorator that gives a command `--seed`, a whole number that fixes what it draws by chance."""
    return click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help=help_text)


def json_option(*, expose_value: bool = True) -> Callable[[Any], Any]:
    """Return a decorator that gives a command `--json`, which it receives as `as_json`.

    expose_value: False for a command that asks `answers_in_json` instead.
    """
    # Click handles eager options first, so that an error of another option is told in JSON too.
    settings: dict[str, Any] = {"is_flag": True, "is_eager": True, "expose_value": expose_value}
    return click.option("--json", "as_json", callback=remember_json, help="Print JSON instead of text.", **settings)


def user_name() -> str:
    """Return the name of the user who runs this program, or the number of one who has no name, as in containers."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"uid {os.getuid()}"


AUTHOR = click.option(
    "--author",
    metavar="NAME",
    default=user_name,
    help="Who does it, for the audit trail. Default: the name of the user.",
)
JSON = json_option()
ARRAY = click.option(
    "--array",
    metavar="NAME",
    help="The name of the array or column in the file. Default: `embedding`, or the only two-dimensional one.",
)
ENCODER = click.option(
    "--encoder",
    metavar="NAME|FILE.json",
    default="minilm-l6",
    show_default=True,
    shell_complete=ENCODER_NAMES,
    help="The encoder: the name of a built-in one, or a .json file with its specification.",
)
ENCODER_DIR = click.option("--encoder-dir", type=PATH, help="The folder that holds the encoder's files.")
PRICES = click.option(
    "--prices",
    metavar="FILE.yaml|litellm",
    help="List prices of the models, from a file or from the table of LiteLLM, for costs that the data do not state.",
)

_ENGINE = (
    click.option(
        "--engine",
        type=click.Choice(ENGINES),
        default="local",
        show_default=True,
        help="Work on this machine, or on a Ray cluster: the one that RAY_ADDRESS names, or one that is started here. "
        "The results are the same.",
    ),
    click.option(
        "--processes",
        type=click.IntRange(1),
        help="The number of processes that work. Default: 1, or with --engine ray one for each CPU of the cluster.",
    ),
)

#: The names of the options of `engine_options`, for the titles of `--help`.
ENGINE_NAMES = ("engine", "processes")


def with_options(*options: Callable[[Any], Any]) -> Callable[[_Function], _Function]:
    """Return a decorator that gives a command all these options, which its help lists in this order."""

    def give(command: _Function) -> _Function:
        # A decorator that is applied later is listed earlier.
        for option in reversed(options):
            command = option(command)
        return command

    return give


def engine_options(command: _Function) -> _Function:
    """Give a command the options that say where its shards are computed. It receives them as `engine`."""

    @functools.wraps(command)
    def with_engine(*arguments: Any, engine: str, processes: int | None, **options: Any) -> Any:
        return command(*arguments, engine=chosen_engine(engine, processes), **options)

    return with_options(*_ENGINE)(cast(_Function, with_engine))


LOG_FORMAT = click.option(
    "--format",
    metavar="FORMAT",
    shell_complete=FORMAT_NAMES,
    help="The format of the log, as `elle import` names it. Default: it is recognised.",
)

#: The options of verbs that ask models: which prompts, how answers are graded, and how much they may cost.
_ASKING = (
    seed_option("The seed of the draw."),
    LOG_FORMAT,
    ENCODER_DIR,
    click.option(
        "--grader",
        "graders",
        multiple=True,
        metavar="NAME[:PARAMETER=VALUE,...]",
        shell_complete=GRADER_NAMES,
        help="How answers are graded; repeatable. The first one gives the score. Default: one that fits the columns.",
    ),
    click.option("--judges", type=PATH, metavar="POLICY", help="A policy file that describes the models that judge."),
    click.option("--budget-usd", type=FiniteRange(0, min_open=True), help="The most USD to spend for --out."),
    click.option("--max-calls", type=click.IntRange(1), help="The most calls to make for --out."),
    click.option(
        "--max-output-tokens",
        default=1024,
        show_default=True,
        type=click.IntRange(1),
        help="The longest answer that is asked for.",
    ),
    click.option(
        "--concurrency",
        default=8,
        show_default=True,
        type=click.IntRange(1),
        help="Calls to one model at the same time.",
    ),
    click.option(
        "--rate",
        "rates",
        multiple=True,
        metavar="[MODEL=]CALLS",
        help="The most calls a minute to each model, or to one; repeatable.",
    ),
    click.option("--yes", is_flag=True, help="Do not ask before the first call."),
)

#: Gives a command the options of verbs that ask models.
asking_options = with_options(*_ASKING)

COLUMNS = click.option(
    "--column",
    "columns",
    multiple=True,
    metavar="NAME=COLUMN",
    help="The column of a plain table or of votes that holds this: prompt=Frage, model=Modell. Repeatable.",
)

_FORCE = "router.cli.force"


def output_option(
    help_text: str, *, required: bool = True, folder: bool = False, suffix: str = ""
) -> Callable[[_Function], _Function]:
    """Return a decorator that gives a command `--out` and `--force`: the command replaces nothing without `--force`.

    The decorated command checks the place before it does any work. `folder` says that the command writes a folder,
    and `suffix` how the name of its file must end, as in `.parquet`.
    """

    def remember_force(ctx: click.Context, _: click.Parameter, force: bool) -> None:
        ctx.meta[_FORCE] = force

    def check_out(ctx: click.Context, _: click.Parameter, out: Path | None) -> Path | None:
        if out is not None and not out.name.lower().endswith(suffix):
            raise DataError(f"--out must end in {suffix}, which is what the command writes; got {shown(out.name)}.")
        if out is not None:
            require_free(out, folder=folder, force=ctx.meta[_FORCE])
        return out

    existing = "a folder that is not empty" if folder else "an existing file"
    place = click.option("--out", required=required, type=PATH, help=help_text, callback=check_out)
    # Click handles eager options first, so `force` is known when `--out` is checked.
    force = click.option(
        "--force", is_flag=True, expose_value=False, is_eager=True, help=f"Replace {existing}.", callback=remember_force
    )
    return lambda command: place(force(_keeps_its_input(command)))


def _fitted_probe(ctx: click.Context, _: click.Parameter, probe: Path) -> Path:
    if str(probe).startswith("builtin:"):
        raise click.UsageError(
            f"{probe} can only be named in a policy; give the folder of a probe that you fitted with `elle fit`.", ctx
        )
    return probe


#: The folder of a probe that was fitted.
PROBE = click.argument("probe", type=PATH, callback=_fitted_probe)


def is_forced(ctx: click.Context) -> bool:
    """Return whether `--force` was given to a command that has `output_option`."""
    return bool(ctx.meta.get(_FORCE))


def _keeps_its_input(command: _Function) -> _Function:
    @functools.wraps(command)
    def checked(*args: Any, **kwargs: Any) -> Any:
        require_other_than_input(click.get_current_context(), kwargs["out"])
        return command(*args, **kwargs)

    return cast(_Function, checked)


def require_other_than_input(ctx: click.Context, out: Path | None) -> None:
    """Raise DataError if the file `out` is an argument of the command: `--force` must not destroy what it reads."""
    for parameter in ctx.command.params:
        given = ctx.params.get(parameter.name or "") if isinstance(parameter, click.Argument) else None
        for path in given if isinstance(given, tuple) else (given,):
            if out is not None and isinstance(path, Path) and out.is_file() and path.exists() and path.samefile(out):
                raise DataError(f"{out} is read by the command and cannot be replaced; choose another --out.")


def require_free(out: Path, *, folder: bool, force: bool) -> None:
    """Raise DataError if `out` holds something that must not be replaced, or if nothing can be written there."""
    kind = "a folder" if folder else "a file"
    if out.exists() and out.is_dir() != folder:
        raise DataError(f"{out} must be {kind} and is not; choose another --out.")
    occupied = any(out.iterdir()) if out.is_dir() else out.exists()
    if occupied and not force:
        raise DataError(f"{out} exists; give --force to replace it, or another --out.")
    if not folder and not out.absolute().parent.is_dir():
        raise DataError(f"the folder of {out} must exist; create it first.")


def split_names(text: str | None) -> tuple[str, ...] | None:
    """Return the names in a comma-separated list, or None if the option was not given. "a, b" gives ("a", "b")."""
    return tuple(name.strip() for name in text.split(",") if name.strip()) if text else None


class GroupedCommand(click.Command):
    """A command whose `--help` lists its options under titles, such as "Targets" and "Prices".

    groups: for each title, the names of its options as the command's function receives them. Options that are in no
    group are listed last, under "Other options".
    """

    def __init__(self, *arguments: Any, groups: Mapping[str, Sequence[str]], **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self.groups = groups

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options into `formatter`, one section for each title."""
        records = {}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if isinstance(parameter, click.Option) and record is not None:
                records[parameter.name] = record
        titled = {title: [records.pop(name) for name in names] for title, names in self.groups.items()}
        for title, rows in (titled | {"Other options": list(records.values())}).items():
            with formatter.section(title):
                formatter.write_dl(rows)


def new_folder(_: click.Context, __: click.Parameter, out: Path | None) -> Path | None:
    """Return the folder that an option names, if it can be written anew. Verbs with this callback replace nothing.

    Raises DataError if something is there already, or if its parent is missing.
    """
    if out is None:
        return None
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise DataError(f"{out} exists, and this command replaces nothing; choose another --out.")
    require_free(out, folder=True, force=False)
    if not out.absolute().parent.is_dir():
        raise DataError(f"the folder of {out} must exist; create it first.")
    return out
