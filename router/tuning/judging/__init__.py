"""Measure how well probes, baselines and policies do on outcomes."""
