"""Speech made on the spot, so that tests, demos and benchmarks need no recordings."""
