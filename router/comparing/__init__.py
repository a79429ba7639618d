"""Estimate from a ledger what policies would have done: their quality and cost, without serving them."""
