"""Fuzz the doors: send random requests that know the structure to a real service on loopback. See `__main__.py`."""
