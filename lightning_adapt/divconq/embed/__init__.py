"""Vectors of texts: embedders, and a cache that can be resumed."""
