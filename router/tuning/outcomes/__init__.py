"""Outcome data: reading it, importing it from other programs, holding a part out, caching its features."""
