"""Answer as a decision model does: which of the named tiers a text needs, with calibrated probabilities."""
