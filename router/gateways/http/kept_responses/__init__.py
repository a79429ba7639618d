"""Note who gave a response of the Responses API, hand calls about it on to its provider, and settle what it cost."""
