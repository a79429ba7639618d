"""Judging: measure probes, baselines and policies on outcomes."""
