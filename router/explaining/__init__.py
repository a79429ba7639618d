"""Explain a decision: split its gain along the known kinds of request, and give the reason in plain words."""
