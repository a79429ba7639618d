"""Fuzzing of the doors: random requests, structure-aware, against a real service on loopback. See `__main__.py`."""
