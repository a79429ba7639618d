"""What `elle tune` answers: the data of the answer, how they are computed, the answer as JSON, the answer as text."""
