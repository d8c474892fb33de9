"""Codecs: audio to whole numbers per frame and back."""
