"""Show operators what the service does: the page on the admin port, its figures, and a box to try a prompt."""
