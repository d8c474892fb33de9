"""Text for speech models: characters, byte pairs or phonemes."""
