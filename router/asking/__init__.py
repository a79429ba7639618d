"""What a request says: the human's question, the turns around it, its language, and the session it belongs to."""
