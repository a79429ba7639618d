"""One decision: the pipeline from a request to its decision record, and what it needs on the way."""
