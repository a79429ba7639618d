"""The arrows of docs/architecture.md, read out of the sources and out of a fresh interpreter."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from tests.arrows import ARROWS, COMMON, FREE
from tests.conftest import ROOT

HEAVY = {
    *("torch", "transformers", "litellm", "sklearn", "pyarrow", "scipy", "matplotlib", "starlette", "uvicorn", "envoy"),
    *("opentelemetry", "prometheus_client", "jinja2"),
}


#: Files that a room may hold at its top level, `__init__` aside.
MOST_FILES = 12

#: Lines that a file may have.
MOST_LINES = 350

#: Parameters that a function may have; more belong into a value object.
MOST_PARAMETERS = 6


def sources(package: str) -> Iterator[Path]:
    return (path for path in (ROOT / package).rglob("*.py") if "pb" not in path.relative_to(ROOT).parts[:-1])


def imports(path: Path, *, everywhere: bool = True) -> set[str]:
    """Modules a file imports; `everywhere=False` leaves out those inside functions and TYPE_CHECKING blocks."""
    tree = ast.parse(path.read_text("utf-8"))
    nodes = ast.walk(tree) if everywhere else iter(tree.body)
    found = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def test_probes_knows_nothing_of_the_router_nor_of_its_wire() -> None:
    for path in sources("probes"):
        tops = {name.partition(".")[0] for name in imports(path)}
        assert not tops & {"router", "grpc", "litellm", "starlette", "uvicorn", "click"}, path


def test_only_upstream_translation_and_plugin_import_litellm_and_offline_the_baseline_that_is_litellm() -> None:
    names = (
        "answering/formats/translating/anthropic_translation.py",
        "answering/formats/translating/responses_translation.py",
        "answering/upstreams/litellm_import.py",
        "gateways/litellm_plugin.py",
        "tuning/judging/litellm_baseline.py",
    )
    allowed = {ROOT / "router" / name for name in names}
    for path in sources("router"):
        text = path.read_text("utf-8")
        names_it = (
            any(name.partition(".")[0] == "litellm" for name in imports(path)) or 'import_module("litellm")' in text
        )
        assert names_it == (path in allowed), path


def test_only_the_wire_files_know_protobuf_messages() -> None:
    allowed = {
        "admin_calls",
        "calls",
        "channels",
        "conversion",
        "deliveries",
        "feedback_messages",
        "guarded_server",
        "request_reader",
    }
    allowed |= {"admin_service", "server", "service_errors", "servicer", "statuses", "structs"}
    for path in sources("router"):
        if any(name.startswith(("router.pb", "google.")) for name in imports(path)):
            assert path.stem in allowed, path


def test_choosing_is_pure() -> None:
    for name in ("choice", "eligibility", "session_hold", "rules"):
        found = imports(ROOT / "router" / "policies" / f"{name}.py")
        assert {one.partition(".")[0] for one in found} <= {
            "__future__",
            "math",
            "collections",
            "dataclasses",
            "router",
        }
        inside = {one.split(".")[1] for one in found if one.startswith("router.")}
        assert inside <= {"asking", "decision", "policies", "errors", "money", "quoting", "values"}, name


def test_only_the_external_processor_knows_envoys_protos() -> None:
    for path in sources("router"):
        names_it = '"envoy.' in path.read_text("utf-8") or any(name.startswith("envoy") for name in imports(path))
        # The other file says which scope its callers need.
        assert names_it == (path.name in {"ext_proc.py", "method_scopes.py"}), path


def test_heavy_libraries_are_imported_only_where_they_are_needed() -> None:
    for package in ("router", "probes"):
        for path in sources(package):
            tops = {name.partition(".")[0] for name in imports(path, everywhere=False)}
            # These are faces of a library, and loaded only when asked for.
            assert not tops & HEAVY or path.name in {"estimator.py", "http_protocol.py"}, path


def run_python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_importing_loads_nothing_heavy_and_opens_no_socket() -> None:
    run_python(
        "import socket, sys\n"
        "def refuse(*a, **k): raise AssertionError('a socket was opened')\n"
        "socket.socket.__init__ = refuse\n"
        "import router, probes, router.deciding.pipeline, router.client, router.serving.server, router.cli.main\n"
        "import router.gateways.http.request_body, router.gateways.ext_proc, router.gateways.litellm_plugin\n"
        f"loaded = set(sys.modules) & {HEAVY!r}\n"
        "assert not loaded, loaded\n"
    )


@pytest.mark.usefixtures("_real_encoder")
def test_deciding_works_with_litellm_uninstalled() -> None:
    out = run_python(
        "import sys\n"
        "sys.modules['litellm'] = None  # makes every import of it fail, as if it were not installed\n"
        "from router.deciding.pipeline import Router\n"
        "from router.values import RouteQuery\n"
        "print(Router.from_files().decide(RouteQuery.from_prompt('What is 2 + 2?')).chosen)\n"
    )
    assert out.strip()


@pytest.mark.parametrize("package", ["router", "probes"])
def test_every_file_says_in_its_first_line_what_it_is_for(package: str) -> None:
    for path in sources(package):
        docstring = ast.get_docstring(ast.parse(path.read_text("utf-8")))
        assert docstring, path
        assert len(docstring.splitlines()[0]) <= 120, path


def modules(package: str) -> dict[str, Path]:
    """Return every module of a package by its dotted name; generated ones are left out."""
    found = {}
    for path in sorted((ROOT / package).rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        if "pb" not in parts:
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imported(path: Path, known: Iterable[str]) -> set[str]:
    """Return the modules among `known` that a file imports, anywhere in it."""
    names = set(known)
    found = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {full if (full := f"{node.module}.{a.name}") in names else node.module for a in node.names}
    return found & names


def room_of(module: str) -> str:
    """Return the room of a module without its package: `tuning.judging` for router.tuning.judging.ranking."""
    parts = module.split(".")[1:]
    return ".".join(parts[:2] if parts[:1] == ["tuning"] else parts[:1])


@pytest.mark.parametrize("package", sorted(ARROWS))
def test_rooms_import_only_the_rooms_that_their_arrows_name(package: str) -> None:
    known = modules(package)
    for module, path in known.items():
        room = room_of(module)
        if room in {"", "tuning"} | FREE[package]:
            continue
        allowed = COMMON[package] | ARROWS[package].get(room, set()) | {room}
        others = {room_of(name) for name in imported(path, known)} - {""}
        assert others <= allowed, f"{module} imports {sorted(others - allowed)}"


@pytest.mark.parametrize("package", sorted(ARROWS))
def test_arrows_between_rooms_make_no_circle(package: str) -> None:
    left = {room: {other for other in arrows if other in ARROWS[package]} for room, arrows in ARROWS[package].items()}
    while free := {room for room, arrows in left.items() if not arrows & left.keys()}:
        left = {room: arrows for room, arrows in left.items() if room not in free}
    assert not left


def test_no_modules_import_each_other_in_a_circle() -> None:
    known = modules("router") | modules("probes")
    left = {module: imported(path, known) - {module} for module, path in known.items()}
    while free := {module for module, others in left.items() if not others & left.keys()}:
        left = {module: others for module, others in left.items() if module not in free}
    # A package's `__init__` is imported with each of its modules; only what it imports by itself counts here.
    assert not left, sorted(left)


@pytest.mark.parametrize("package", sorted(ARROWS))
def test_no_room_holds_more_files_than_a_reader_can_survey(package: str) -> None:
    count: dict[Path, int] = defaultdict(int)
    for path in modules(package).values():
        count[path.parent] += path.name != "__init__.py"
    full = {str(folder.relative_to(ROOT)): n for folder, n in count.items() if n > MOST_FILES}
    assert not full


@pytest.mark.parametrize("package", sorted(ARROWS))
def test_no_public_name_is_defined_twice_in_a_package(package: str) -> None:
    homes: dict[str, list[str]] = defaultdict(list)
    for module, path in modules(package).items():
        if "migrations.versions." in module:
            # Alembic calls the same function of every step.
            continue
        for node in ast.parse(path.read_text("utf-8")).body:
            if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and node.name[0] != "_":
                homes[node.name].append(module)
    assert not {name: where for name, where in homes.items() if len(where) > 1}


def written_files(folder: str) -> Iterator[Path]:
    """Yield the source files that people wrote in a folder: neither generated protobuf code nor installed packages."""
    for path in sorted((ROOT / folder).rglob("*")):
        others = {"pb", "node_modules", ".venv", "venv", "build"} & set(path.relative_to(ROOT).parts)
        if path.suffix in {".py", ".c", ".h", ".js", ".mjs", ".sh"} and not others and path.is_file():
            yield path


@pytest.mark.parametrize("folder", ["benchmarks", "examples", "probes", "router", "scripts", "tests"])
def test_files_are_short(folder: str) -> None:
    counts = {str(path.relative_to(ROOT)): path.read_text("utf-8").count("\n") for path in written_files(folder)}
    assert counts
    assert not {path: count for path, count in counts.items() if count > MOST_LINES}


@pytest.mark.parametrize("folder", ["benchmarks", "probes", "router", "scripts"])
def test_nine_functions_in_ten_are_under_thirty_lines(folder: str) -> None:
    lengths = [
        (node.end_lineno or node.lineno) - node.lineno + 1
        for path in written_files(folder)
        if path.suffix == ".py"
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    assert sum(length < 30 for length in lengths) >= 0.9 * len(lengths)


@pytest.mark.parametrize("package", sorted(ARROWS))
def test_no_function_has_more_parameters_than_a_caller_can_remember(package: str) -> None:
    many = {}
    for module, path in modules(package).items():
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            # The parameters of a click command are the arguments and options of the command line, which click passes.
            if any(".command(" in ast.unparse(decorator) for decorator in node.decorator_list):
                continue
            args = node.args
            every = [*args.posonlyargs, *args.args, *args.kwonlyargs, args.vararg, args.kwarg]
            names = [arg.arg for arg in every if arg is not None and arg.arg not in {"self", "cls"}]
            if len(names) > MOST_PARAMETERS:
                many[f"{module}.{node.name}"] = names
    assert not many
