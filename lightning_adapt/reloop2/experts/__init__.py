"""The parts of an `AdaptiveErrorMemory`: signals, and how far to trust them."""
