"""The verbs of `elle` that update a saved probe: new labels are merged into it, or old ones removed from it."""
