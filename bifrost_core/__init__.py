"""Route LLM calls inside your Python process. README.md shows how; these are the public names."""

from __future__ import annotations

from .attempts import Attempt
from .balancing import Balancer, LatencyWeighted, LeastBusy, LowestLatency, RoundRobin, WeightedRandom
from .calls import Call, CallRecord, Principal
from .clocks import Clock, SystemClock
from .engines.base import HttpEngine
from .errors import (
    BadRequestError,
    BifrostError,
    BudgetExceededError,
    CallError,
    ConfigError,
    ContextLengthError,
    DeadlineExceededError,
    GuardrailError,
    ModelNotFoundError,
    NoKeyAvailableError,
    PluginError,
    ProviderAuthError,
    ProviderConnectionError,
    ProviderError,
    ProviderRateLimitError,
    ProviderServerError,
    ProviderTimeoutError,
    RateLimitError,
    RefusedError,
    StreamBrokenError,
    StructuredOutputError,
    UnsupportedParameterError,
    VirtualKeyError,
)
from .estimates import Estimate
from .health import RouteHealth
from .hedging import Hedge
from .hooks import HookOptions, load_plugins
from .hookspecs import StreamFilter, hookimpl
from .keys import Key, Secret
from .kinds import Kind
from .prices import Price, PriceBook
from .providers import Anthropic, Mistral, OpenAI, OpenAICompatible
from .providers.base import Provider
from .responses import (
    ChatResponse,
    ClassificationResponse,
    EmbeddingResponse,
    ModelInfo,
    ModelList,
    ModerationResponse,
    ModerationResult,
    OcrPage,
    OcrResponse,
    Response,
    ResponsesResponse,
    Segment,
    SpeechResponse,
    Transcription,
)
from .retries import RetryPolicy
from .router import Router
from .streams import ChatStream, ResponseStream, TranscriptionStream
from .sync import SyncRouter
from .sync_streams import SyncChatStream, SyncResponseStream, SyncTranscriptionStream
from .timeouts import Timeout
from .types import Choice, Chunk, File, Message, Operation, Request, Route, RouteRef, ToolCall, Usage

__all__ = [
    "Anthropic",
    "Attempt",
    "BadRequestError",
    "Balancer",
    "BifrostError",
    "BudgetExceededError",
    "Call",
    "CallError",
    "CallRecord",
    "ChatResponse",
    "ChatStream",
    "Choice",
    "Chunk",
    "ClassificationResponse",
    "Clock",
    "ConfigError",
    "ContextLengthError",
    "DeadlineExceededError",
    "EmbeddingResponse",
    "Estimate",
    "File",
    "GuardrailError",
    "Hedge",
    "HookOptions",
    "HttpEngine",
    "Key",
    "Kind",
    "LatencyWeighted",
    "LeastBusy",
    "LowestLatency",
    "Message",
    "Mistral",
    "ModelInfo",
    "ModelList",
    "ModelNotFoundError",
    "ModerationResponse",
    "ModerationResult",
    "NoKeyAvailableError",
    "OcrPage",
    "OcrResponse",
    "OpenAI",
    "OpenAICompatible",
    "Operation",
    "PluginError",
    "Price",
    "PriceBook",
    "Principal",
    "Provider",
    "ProviderAuthError",
    "ProviderConnectionError",
    "ProviderError",
    "ProviderRateLimitError",
    "ProviderServerError",
    "ProviderTimeoutError",
    "RateLimitError",
    "RefusedError",
    "Request",
    "Response",
    "ResponseStream",
    "ResponsesResponse",
    "RetryPolicy",
    "RoundRobin",
    "Route",
    "RouteHealth",
    "RouteRef",
    "Router",
    "Secret",
    "Segment",
    "SpeechResponse",
    "StreamBrokenError",
    "StreamFilter",
    "StructuredOutputError",
    "SyncChatStream",
    "SyncResponseStream",
    "SyncRouter",
    "SyncTranscriptionStream",
    "SystemClock",
    "Timeout",
    "ToolCall",
    "Transcription",
    "TranscriptionStream",
    "UnsupportedParameterError",
    "Usage",
    "VirtualKeyError",
    "WeightedRandom",
    "hookimpl",
    "load_plugins",
]
