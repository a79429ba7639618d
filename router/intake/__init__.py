"""What comes in, bounded: its structure counted before it is decoded, its bytes held within a budget."""
