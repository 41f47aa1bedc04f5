"""The public functions on labels."""
