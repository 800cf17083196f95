"""Tools of a language model: functions, how they are run, and the ledger of their calls."""

from .tool import Tool, ToolContext, ToolError, ToolSpec, tool

__all__ = ["Tool", "ToolContext", "ToolError", "ToolSpec", "tool"]
