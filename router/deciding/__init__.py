"""Make one decision: a pipeline leads from a request to its decision record."""
