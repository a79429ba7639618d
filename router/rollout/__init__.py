"""Try a new policy on a share of the traffic, widen it step by step, and undo it when evidence speaks against it."""
