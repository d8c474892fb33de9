"""What two or more methods need; one theme per file. Nothing here imports a method."""
