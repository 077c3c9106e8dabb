"""What held-out data says of a model's doubt: pure functions over float64 numpy arrays."""
