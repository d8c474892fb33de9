"""Quality of examples, and how far a model is from them: scorers for the rounds."""
