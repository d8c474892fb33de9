"""Speech with its text: manifests, audio, codes kept on disk, batches by length, and the DataModule."""
