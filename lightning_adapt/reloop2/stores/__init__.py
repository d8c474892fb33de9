"""Where an `ErrorMemory` keeps its samples: one small interface, three backends, whitened keys."""
