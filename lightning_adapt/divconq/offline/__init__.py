"""The selection from a file, without a Trainer: the command `lightning-adapt select` and its report page."""
