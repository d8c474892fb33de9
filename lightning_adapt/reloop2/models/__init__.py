"""Click models to adapt."""
