"""Instruction data as text: conversations, formats, files, and the texts of any data set."""
