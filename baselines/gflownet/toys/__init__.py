"""Tasks small enough to enumerate, whose true distribution is known exactly."""
