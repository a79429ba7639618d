"""The options of `elle serve` for a service on Ray, and how they start it."""
