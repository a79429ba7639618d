"""The grader that runs the code of an answer against tests, in a confined process."""
