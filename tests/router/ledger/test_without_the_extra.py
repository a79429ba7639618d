"""Only what keeps records in a database knows databases, and without their packages everything else works."""

from __future__ import annotations

from tests.conftest import ROOT
from tests.test_architecture import imports, run_python, sources

#: Rooms and files that know databases.
KNOW = ("router/ledger/", "router/sharing/", "router/versions/postgres_store.py", "router/cli/checking/records.py")


def test_few_know_databases_and_the_ledger_says_so_if_they_are_missing() -> None:
    for path in sources("router"):
        tops = {name.partition(".")[0] for name in imports(path)}
        if tops & {"sqlalchemy", "alembic", "psycopg"}:
            assert path.relative_to(ROOT).as_posix().startswith(KNOW), path
    out = run_python(
        "import sys\n"
        "sys.modules['sqlalchemy'] = None  # makes every import of it fail, as if it were not installed\n"
        "import router.serving.server, router.cli.main\n"
        "from router.errors import ConfigError\n"
        "from router.ledger.opening import open_ledger\n"
        "from router.ledger.settings import LedgerSettings\n"
        "try:\n"
        "    open_ledger(LedgerSettings('x.db'))\n"
        "except ConfigError as error:\n"
        "    print(error)\n"
    )
    assert "pip install 'elle-router[ledger]'" in out
