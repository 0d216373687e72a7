"""This machine: what it computes on, what asks it to stop, and what a record says of it."""
