"""The commands of `lightning-adapt` that have to do with speech."""
