"""Fit monotone maps that turn a predicted loss into a probability of failure."""
