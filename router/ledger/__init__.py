"""Keep a ledger of every decision, every answer and all feedback, in SQLite or PostgreSQL, off the request path."""
