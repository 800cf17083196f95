"""Base of all services: deadlines, retries, fall-backs and health."""
