"""The things compared: each module offers one `Side` (see `sides/base.py`)."""
