"""What each call site computes: maps, focus, which neurons take part, what constants are worth."""
