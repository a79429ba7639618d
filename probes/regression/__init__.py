"""Ridge regression from sufficient statistics, and the frozen arrays that serve its predictions."""
