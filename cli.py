"""The command line."""


def main() -> int:
    """Run `voxline`."""
    return 0
