"""Fall-backs: the next service takes over where one fails."""
