"""Find sentences that change nothing about a request, such as thanks and flattery, and read the text without them."""
