"""A long run of a server under load, every answer checked: `make soak`; see `__main__`."""
