"""Tell those who watch the service what it decides and what comes of it: metrics, traces, logs and the ledger."""
