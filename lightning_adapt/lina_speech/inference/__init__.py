"""Inference of Lina-Speech: sampling of codec tokens, batched decoding with early stops, streaming, best of several."""
