"""Labelled and unlabelled images, drawn without end, and their views."""
