"""The session: whose turn it is, what was said and heard, and when it is over."""
