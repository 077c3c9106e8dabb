"""A version measured on held-out data, and a page that says what the numbers mean."""
