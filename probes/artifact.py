"""The import path of `probes.artifacts.store` that cards of older probes show; it goes with the next release."""

from probes.artifacts.store import load, load_prior, save

__all__ = ["load", "load_prior", "save"]
