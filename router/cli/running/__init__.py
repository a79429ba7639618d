"""The verbs of `elle` that run the service: its options, its configuration file, and the tokens of its callers."""
