"""Ridge regression from sufficient statistics, and what it leaves behind for serving."""
