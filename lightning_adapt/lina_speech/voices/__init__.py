"""Voices of Lina-Speech: the file that a voice is kept in, mixtures of voices, and voices from a prompt."""
