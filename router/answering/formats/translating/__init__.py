"""Translate requests of other APIs into chat completions and the answers back, and say what is lost on the way."""
