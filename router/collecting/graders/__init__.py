"""Grade answers: each grader is a class in a file of its own with one method, `grade`."""
