"""Someone else's training: read while it runs (`callback`), and put beside a study (`record`)."""
