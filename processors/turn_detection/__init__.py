"""Turn detection: predict whether the user has finished."""
