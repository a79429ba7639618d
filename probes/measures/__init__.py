"""Measures of predictions and of routing, each with its formula, and bootstrap intervals for them."""
