"""Read policies and their certificates, check which candidates may answer a request, and choose one of them."""
