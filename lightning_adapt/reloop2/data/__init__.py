"""Logs cut by time, to serve in the order in which they came."""
