"""The `elle` command: one module for each group of verbs."""
