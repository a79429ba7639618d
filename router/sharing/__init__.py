"""Share sessions and what callers have used with other processes: in memory, and through SQLite or PostgreSQL."""
