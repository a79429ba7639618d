"""Send a small share of requests to another candidate than the policy chooses, so that policies can be compared."""
