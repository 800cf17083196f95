"""Tools of a language model: the functions, their execution, and the ledger of calls."""

from .tool import Tool, ToolContext, ToolError, ToolSpec, tool

__all__ = ["Tool", "ToolContext", "ToolError", "ToolSpec", "tool"]
