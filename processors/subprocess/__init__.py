"""A service in a process of its own: parent, pipes, child, protocol and model files."""
