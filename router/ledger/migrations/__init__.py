"""Bring the tables of a ledger from one version to the next. Alembic runs the files in `versions`."""
