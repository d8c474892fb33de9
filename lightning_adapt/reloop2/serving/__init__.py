"""A memory behind a server: predictions and labels are separate requests, and no acknowledged label is lost."""
