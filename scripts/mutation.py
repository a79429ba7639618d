"""Run mutation tests of what decides (`make mutation`); print killed and survived mutants per file as JSON.

mutmut 3 changes one thing at a time in the files that `[tool.mutation.areas]` of pyproject.toml names, and runs the
tests that call the changed function. A mutant is killed if mypy refuses it, a test fails, or the tests do not end.
A mutant that no test calls has survived. Mutants that change nothing that a test could see are listed with the reason
in the file that `[tool.mutation] equivalent` names, and are not counted.

Each area is mutated in a folder of its own below `out/mutation`. Results are kept there: a later run tries again only
what has changed, and what survived. With `--sample N` it tries N mutants of each area, drawn at random by `--seed`:
`make mutation SAMPLE="--sample 30"` takes minutes where all mutants take hours.
"""

from __future__ import annotations

import contextlib
import fnmatch
import json
import os
import random
import re
import subprocess
import sys
import tomllib
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import click
import yaml

ROOT = Path(__file__).resolve().parent.parent
WORK = ROOT / "out" / "mutation"

#: Exit codes in mutmut's results: all tests passed; no test calls the function.
SURVIVED, NO_TESTS = 0, {5, 33}

#: mypy refuses the mutant.
REFUSED_BY_TYPES = 37


def read_settings() -> dict[str, Any]:
    """Return the table `[tool.mutation]` of pyproject.toml."""
    settings: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["mutation"]
    return settings


def prepare(area: str, settings: Mapping[str, Any]) -> Path:
    """Return the folder to run mutmut in: the packages and tests as links, and pyproject.toml with its settings."""
    folder = WORK / area
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("router", "probes", "tests"):
        if not (folder / name).is_symlink():
            (folder / name).symlink_to(ROOT / name, target_is_directory=True)
    files = settings["areas"][area]["mutate"]
    mutmut = {
        "source_paths": ["router", "probes"],
        "only_mutate": files,
        "do_not_mutate_patterns": settings["not_mutated"],
        "pytest_add_cli_args": ["-p", "no:cacheprovider"],
        "pytest_add_cli_args_test_selection": settings["areas"][area]["tests"],
        "type_check_command": [sys.executable, "-m", "mypy", "--no-warn-unused-ignores", "--output", "json", *files],
        "process_isolation": "forkserver",  # tests start threads, which no fork survives
        "use_git_change_detection": False,
        "timeout_constant": 20.0,
    }
    # A JSON string, number or list of them is TOML as well.
    lines = [f"{key} = {json.dumps(value)}" for key, value in mutmut.items()]
    text = (ROOT / "pyproject.toml").read_text("utf-8") + "\n[tool.mutmut]\n" + "\n".join(lines) + "\n"
    (folder / "pyproject.toml").write_text(text, "utf-8")
    return folder


def refresh_copies(folder: Path) -> None:
    """Remove those of mutmut's copies that are older than their source; it copies what is not there.

    Which test calls which function is asked anew too: mutmut asks it of new tests only, not of renamed functions.
    """
    (folder / "mutants" / "mutmut-stats.json").unlink(missing_ok=True)
    for package in ("router", "probes"):
        for copy in (folder / "mutants" / package).rglob("*.*"):
            source = ROOT / copy.relative_to(folder / "mutants")
            if (copy.is_file() and copy.suffix != ".meta" and not source.exists()) or (
                copy.is_file() and source.is_file() and source.stat().st_mtime > copy.stat().st_mtime
            ):
                copy.unlink()


def run_mutmut(folder: Path, names: list[str], children: int) -> None:
    """Run mutmut, with its progress on stderr; raise CalledProcessError if it cannot begin."""
    command = [sys.executable, "-c", "from mutmut.__main__ import cli; cli()", "run", "--max-children", str(children)]
    done = subprocess.run([*command, *names], cwd=folder, stdout=subprocess.PIPE, text=True, check=False)
    lines = re.split(r"[\r\n]+", done.stdout)
    # Of the progress only the last state.
    sys.stderr.write("\n".join(lines[-40:] if done.returncode else lines[-3:]) + "\n")
    done.check_returncode()


def generate(folder: Path, children: int) -> None:
    """Write the mutants of an area without trying them; raise CalledProcessError if that fails."""
    steps = "copy_src_dir(); m.copy_also_copy_files(); m.setup_source_paths(); m.create_mutants"
    (folder / "mutants").mkdir(exist_ok=True)
    command = [sys.executable, "-c", f"import mutmut.__main__ as m; m.{steps}({children})"]
    subprocess.run(command, cwd=folder, stdout=subprocess.DEVNULL, check=True)


def draw(folder: Path, files: list[str], only: str, number: int | None, seed: int) -> list[str]:
    """Return the names of the mutants of these files that match `only`: `number` of them drawn at random, or all."""
    names = sorted(name for file in files for name in results_of(folder, file) if fnmatch.fnmatch(name, only))
    if number is None or number >= len(names):
        return names
    return sorted(random.Random(seed).sample(names, number))  # noqa: S311 - no secret


def results_of(folder: Path, file: str) -> dict[str, int | None]:
    """Return the exit code of each mutant of a file by the mutant's name, None if it was not tried."""
    if not (folder / "mutants" / f"{file}.meta").exists():
        return {}
    codes: dict[str, int | None] = json.loads((folder / "mutants" / f"{file}.meta").read_text("utf-8"))[
        "exit_code_by_key"
    ]
    return codes


def reset_survivors(folder: Path, files: list[str]) -> None:
    """Let mutmut try again what survived; a mutant named to it is tried again in any case."""
    for file in files:
        path = folder / "mutants" / f"{file}.meta"
        if not path.exists():
            continue
        meta = json.loads(path.read_text("utf-8"))
        codes = meta["exit_code_by_key"]
        for name, code in codes.items():
            if code == SURVIVED or code in NO_TESTS:
                codes[name] = None
        path.write_text(json.dumps(meta), "utf-8")


@contextlib.contextmanager
def working_in(folder: Path) -> Iterator[None]:
    """Make this folder the working directory, in which mutmut looks for its files, while the context lasts."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def change_of(folder: Path, file: str, name: str) -> tuple[str, str]:
    """Return what the mutant changes: the lines before and after, without indentation."""
    from mutmut.mutation.diff_apply import get_diff_for_mutant

    with working_in(folder):
        lines = get_diff_for_mutant(name, path=file).splitlines()[2:]
    before, after = (" ".join(line[1:].strip() for line in lines if line.startswith(sign)) for sign in "-+")
    return before, after


def report(
    area: str, folder: Path, settings: Mapping[str, Any], names: Collection[str], *, show: bool
) -> dict[str, Any]:
    """Return the figures of the named mutants of an area per file; survivors go to stderr if `show` is true."""
    listed = yaml.safe_load((ROOT / settings["equivalent"]).read_text("utf-8")) or []
    known = {(one["file"], one["before"], one["after"]) for one in listed}
    found = {}
    for file in settings["areas"][area]["mutate"]:
        codes = {name: code for name, code in results_of(folder, file).items() if name in names}
        survived, equivalent = [], 0
        for name, code in codes.items():
            if code != SURVIVED and code not in NO_TESTS:
                continue
            change = change_of(folder, file, name)
            if (file, *change) in known:
                equivalent += 1
                continue
            survived.append(name)
            if show:
                sys.stderr.write(f"{name} [{'no test' if code else 'survived'}]\n  - {change[0]}\n  + {change[1]}\n")
        tried = sum(code is not None for code in codes.values()) - equivalent
        found[file] = {
            "mutants": len(codes),
            "tried": tried,
            "killed": tried - len(survived),
            "by_types": sum(code == REFUSED_BY_TYPES for code in codes.values()),
            "survived": len(survived),
            "equivalent": equivalent,
            "killed_share": round(1 - len(survived) / tried, 4) if tried else None,
        }
    return found


@click.command(help=__doc__)
@click.argument("areas", nargs=-1)
@click.option("--only", help="Only mutants whose name matches, say '*choice*', or '*[37]' for about a fifth of all.")
@click.option("--sample", type=click.IntRange(min=1), help="Only so many mutants of each area, drawn at random.")
@click.option("--seed", default=0, show_default=True, help="The seed of the draw.")
@click.option("--children", default=os.cpu_count() or 1, show_default=True, help="Mutants tried at a time.")
@click.option("--survivors", is_flag=True, help="Say on stderr what survived.")
@click.option("--report-only", is_flag=True, help="Run nothing; report what is there.")
def main(
    areas: tuple[str, ...],
    only: str | None,
    sample: int | None,
    seed: int,
    children: int,
    survivors: bool,
    report_only: bool,
) -> None:
    """Run the areas, all by default, and print the figures."""
    settings = read_settings()
    figures = {}
    for area in areas or settings["areas"]:
        folder = prepare(area, settings)
        files = settings["areas"][area]["mutate"]
        if not report_only:
            refresh_copies(folder)
            reset_survivors(folder, files)
            generate(folder, children)
        names = draw(folder, files, only or "*", sample, seed)
        if not report_only:
            run_mutmut(folder, names if only or sample else [], children)
        figures[area] = report(area, folder, settings, set(names), show=survivors)
    print(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
