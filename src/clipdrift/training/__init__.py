"""The training loop, and the state from which it goes on after any step."""
