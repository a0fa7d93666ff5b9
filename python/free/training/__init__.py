"""Training of teachers and drafters."""
