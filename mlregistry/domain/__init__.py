"""What interruption risk is made of; plain Python."""
