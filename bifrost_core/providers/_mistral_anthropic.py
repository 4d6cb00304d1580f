"""What an Anthropic-shaped chat request has beside the OpenAI shape, as Mistral takes it.

Callers who speak Anthropic's dialect, and fallbacks from Claude to Mistral, send such requests. What asks for nothing
that Mistral's answer would lack is left out and noted; the rest is mapped, or refused by its name.

Source:
    https://platform.claude.com/docs/en/api/messages/create (what the members mean),
    https://platform.claude.com/docs/en/api/beta-headers and https://docs.mistral.ai/capabilities/reasoning.
"""

from __future__ import annotations

# pyright: reportUnknownVariableType=false, reportUnknownMemberType=false, reportUnknownArgumentType=false
# (wire JSON: its members are untyped until this module has read them)
import re
from collections.abc import Mapping
from typing import Any, Final

from bifrost_core.types import JsonObject

from ._members import Writer, leave_out, refuse
from ._reporter import Reporter

__all__ = ["BESIDE_CHAT", "is_served_tool", "plain_tool"]

_SERVED_TOOL: Final = re.compile(r".+_20\d{6}")  # Anthropic's own tools have a date: web_search_20250305
_ALWAYS_THINK: Final = "magistral"
_PLAIN_TOOL: Final = frozenset({"type", "function"})
# A tool that would be loaded once it is searched for is there from the start.
_BESIDE_TOOL: Final = frozenset(
    {"allowed_callers", "cache_control", "defer_loading", "eager_input_streaming", "input_examples"}
)
_DIRECT: Final = ["direct"]  # only the model itself may call the tool, as everywhere else
# Betas that alone ask for nothing: what they switch on stands in the request by itself, or is how bytes are sent.
_WORDLESS_BETAS: Final = re.compile(
    r"(?:claude-code|extended-cache-ttl|fine-grained-tool-streaming|interleaved-thinking|output-128k|pdfs"
    r"|prompt-caching(?:-scope)?|structured-outputs|token-efficient-tools)-\d{4}-?\d{2}-?\d{2}"
)


def _thinking(members: JsonObject, name: str, value: Any, reporter: Reporter) -> None:
    """Whether to think: Mistral's models that can are asked by an effort, of which ``high`` is the one documented."""
    kind = value.get("type") if isinstance(value, Mapping) else None
    if kind == "enabled":
        if not str(members["model"]).startswith(_ALWAYS_THINK):
            members.setdefault("reasoning_effort", "high")
        reporter.note(
            "the budget of 'thinking' is left out: at Mistral 'max_tokens' holds thoughts and answer together"
        )
    elif kind in ("disabled", "adaptive", "between_tools"):
        reporter.note(f"the field {name!r}, which leaves it to the model whether to think, is left out")
    else:
        raise reporter.unsupported(f"{name}.type", "it is enabled, disabled, adaptive or between_tools")


def _output_config(members: JsonObject, name: str, value: Any, reporter: Reporter) -> None:
    if not isinstance(value, Mapping):
        raise reporter.invalid(f"{name} is no object")
    for member, given in value.items():
        if member == "effort" and given is not None:
            members["reasoning_effort"] = given
        elif given is not None:
            raise reporter.unsupported(f"{name}.{member}", "Mistral has no such field")


def _betas(members: JsonObject, name: str, value: Any, reporter: Reporter) -> None:  # noqa: ARG001 # a Writer
    names = value if isinstance(value, (list, tuple)) else [value]
    for beta in names:
        if not isinstance(beta, str) or _WORDLESS_BETAS.fullmatch(beta) is None:
            raise reporter.unsupported(name, f"Mistral has none of Anthropic's betas, such as {str(beta)[:64]!r}")
    if names:
        reporter.note("betas of Anthropic's that alone ask for nothing are left out")


BESIDE_CHAT: Final[Mapping[str, Writer]] = {
    "betas": _betas,
    "cache_control": leave_out,  # whether a prompt is kept does not change the answer
    "container": refuse(),
    "context_management": refuse({}),
    "diagnostics": leave_out,
    "inference_geo": refuse("global"),
    "mcp_servers": refuse([]),
    "output_config": _output_config,
    "speed": refuse("standard"),
    "thinking": _thinking,
}


def is_served_tool(tool: Mapping[str, Any]) -> bool:
    """Whether a tool is one of Anthropic's own."""
    kind = tool.get("type")
    return isinstance(kind, str) and _SERVED_TOOL.fullmatch(kind) is not None


def plain_tool(path: str, tool: Mapping[str, Any], reporter: Reporter) -> Mapping[str, Any]:
    """A function without the members beside it that say nothing to Mistral's models; all others stay.

    Raises:
        UnsupportedParameterError: Programs that a server runs shall call it, or it has examples.
    """
    if tool.keys() <= _PLAIN_TOOL:
        return tool
    plain: JsonObject = {}
    for name, value in tool.items():
        if value is None or name not in _BESIDE_TOOL:
            plain[name] = value
        elif (name == "allowed_callers" and value != _DIRECT) or (name == "input_examples" and value != []):
            raise reporter.unsupported(f"{path}.{name}", "Mistral has no such member, and it tells the model something")
        else:
            reporter.note(f"the member {name!r} of tools, which Mistral refuses, is left out")
    return plain
