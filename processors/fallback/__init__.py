"""Fall-backs: the next service takes over when one fails."""
