"""The arrows of docs/architecture.md, read out of the sources and out of a fresh interpreter."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT

HEAVY = {
    "torch",
    "transformers",
    "litellm",
    "sklearn",
    "pyarrow",
    "scipy",
    "matplotlib",
    "starlette",
    "uvicorn",
    "envoy",
}


#: Which rooms of `router` each room may import, besides the modules of the root and `probes`.
ARROWS = {
    "intake": set(),
    "asking": set(),
    "policies": {"asking"},
    "deciding": {"asking", "intake", "policies"},
    "answering": {"policies"},
    "wire": {"answering", "asking", "deciding", "intake"},
    "serving": {"answering", "deciding", "intake", "policies", "wire"},
    "gateways": {"answering", "asking", "deciding", "intake", "policies"},
    "tuning": {"asking", "policies"},
    "cli": {"answering", "deciding", "gateways", "policies", "serving", "tuning"},
}


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


def test_only_upstream_and_the_plugin_import_litellm_and_offline_the_baseline_that_is_litellm() -> None:
    names = (
        "answering/upstreams/litellm_upstream.py",
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
        "conversion.py",
        "servicer.py",
        "server.py",
        "client.py",
        "statuses.py",
        "structs.py",
        "service_errors.py",
        "request_reader.py",
        "guarded_server.py",
    }
    for path in sources("router"):
        if any(name.startswith(("router.pb", "google.")) for name in imports(path)):
            assert path.name in allowed, path


def test_rooms_import_only_the_rooms_that_the_table_allows() -> None:
    rooms = {path.parent.name for path in (ROOT / "router").glob("*/__init__.py")} - {"pb"}
    assert rooms == set(ARROWS), "a new room needs its arrows in the table"
    for room, allowed in ARROWS.items():
        for path in sources(f"router/{room}"):
            found = {name.split(".")[1] for name in imports(path) if name.startswith("router.")}
            assert found & rooms <= allowed | {room}, f"{path} imports {sorted(found & rooms - allowed - {room})}"


def test_no_imports_go_in_a_circle() -> None:
    files = {module_name(path): path for package in ("router", "probes") for path in sources(package)}
    graph = {name: imports(path) & set(files) - {name} for name, path in files.items()}
    while leaves := [name for name, found in graph.items() if not found & set(graph)]:
        for name in leaves:
            del graph[name]
    # What is left after taking away, again and again, the files that import none of the others.
    assert not graph, f"imports go in a circle among {sorted(graph)}"


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


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
        assert inside <= {"asking", "policies", "errors", "quoting", "values"}, name


def test_serving_does_not_depend_on_what_is_offline() -> None:
    for room in ("asking", "policies", "deciding", "answering", "wire", "serving", "gateways"):
        for path in sources(f"router/{room}"):
            assert not any(found.startswith("router.tuning") for found in imports(path)), path


def test_only_the_command_line_knows_the_gateways() -> None:
    for path in sources("router"):
        if any(name.startswith("router.gateways") for name in imports(path)):
            assert path.parent.name in {"gateways", "cli"}, path


def test_only_the_external_processor_knows_envoys_protos() -> None:
    for path in sources("router"):
        names_it = '"envoy.' in path.read_text("utf-8") or any(name.startswith("envoy") for name in imports(path))
        assert names_it == (path.name == "ext_proc.py"), path


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
        "import router.gateways.openai_body, router.gateways.ext_proc, router.gateways.litellm_plugin\n"
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
