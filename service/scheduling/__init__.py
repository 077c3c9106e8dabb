"""What waits, what runs next, and the one thread that runs it."""
