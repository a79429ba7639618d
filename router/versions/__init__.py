"""Keep versions of policies that never change, say which of them are active, and record who changed that and why."""
