"""Failures that the test tools raise: assertion errors, so that pytest reports them as failed tests."""

from __future__ import annotations


class BenchFailure(AssertionError):
    """A bench found a fault. The message describes it and ends with the timeline of the run."""


class ContractFailure(AssertionError):
    """An adapter or a transport breaks a rule of its contract. The message names the rule, and what was expected."""
