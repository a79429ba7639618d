"""Compute what `elle tune` answers, and show the answer as JSON or as text."""
