"""Learning curves of active learning on MNIST: what choosing the labels is worth."""
