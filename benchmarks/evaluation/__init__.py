"""What Monte Carlo dropout is worth on public data, beside what was published: `make evaluate`."""
