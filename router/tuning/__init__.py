"""Do everything that needs no running service: read outcomes, fit probes, tune policies, and evaluate both."""
