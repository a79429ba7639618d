"""Measure predictions and routing, each by a stated formula, with bootstrap intervals."""
