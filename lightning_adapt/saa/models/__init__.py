"""Semi-supervised classifiers to train, and the networks inside."""
