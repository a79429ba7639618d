"""Import what evaluation programs write: one record for each question, with what was asked and how it was graded."""
