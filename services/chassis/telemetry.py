"""Logs, and traces when they are wanted. Both are configured once per process, so this is the one module that keeps state."""

from __future__ import annotations

import contextlib
import io
import logging
import sys
from collections.abc import Iterator
from typing import Any, Literal

import structlog
from pydantic import BaseModel, ConfigDict, Field

from chassis.faults import SettingsInvalid


class LogSettings(BaseModel):
    """What is logged, and how it looks."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    level: Literal["debug", "info", "warning", "error"] = Field("info", description="The least severe level that is written.")
    format: Literal["auto", "pretty", "json"] = Field("auto", description="auto: pretty in a terminal, JSON elsewhere.")
    calls: bool = Field(True, description="Whether each call gets its line, at level info.")


class TelemetrySettings(BaseModel):
    """Where traces go."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    otlp_endpoint: str = Field("", description="An OTLP/gRPC collector, such as http://127.0.0.1:4317. Empty: no spans are made.")
    sample_ratio: float = Field(1.0, ge=0, le=1, description="The share of new traces that is recorded; others' decisions are followed.")


class _Stderr(io.StringIO):
    """Standard error that never fails: who reads it may be gone, and its disk full, which must not fail what is logged about."""

    def write(self, text: str) -> int:
        """Writes if it can."""
        with contextlib.suppress(OSError, ValueError):
            sys.stderr.write(text)
        return len(text)

    def flush(self) -> None:
        """Flushes if it can."""
        with contextlib.suppress(OSError, ValueError):
            sys.stderr.flush()


class _State:
    calls_logged = False
    tracer: Any = None


def calls_logged() -> bool:
    """Whether each call gets a line: logging was set up, at level info or below, and not without calls."""
    return _State.calls_logged and bool(structlog.get_logger().is_enabled_for(logging.INFO))


def tracer() -> Any:
    """The OpenTelemetry tracer, None while no spans are made."""
    return _State.tracer


def set_up_logging(settings: LogSettings) -> None:
    """Configures structlog, and what libraries log, for this process. Logs go to stderr; stdout belongs to commands."""
    level = logging.getLevelNamesMapping()[settings.level.upper()]
    pretty = settings.format == "pretty" or (settings.format == "auto" and sys.stderr.isatty())
    last = _PRETTY if pretty else _JSON
    structlog.configure(
        processors=[*_FIRST, *last],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(_Stderr()),
        cache_logger_on_first_use=False,
    )
    _State.calls_logged = settings.calls
    handler = logging.StreamHandler(_Stderr())
    handler.setFormatter(structlog.stdlib.ProcessorFormatter(processors=[_without_record, *last], foreign_pre_chain=_FIRST))
    logging.basicConfig(handlers=[handler], level=max(level, logging.WARNING), force=True)


def _without_record(logger: Any, name: str, event: Any) -> Any:
    return structlog.stdlib.ProcessorFormatter.remove_processors_meta(logger, name, event)


# Local variables stay out of tracebacks: they hold content and secrets.
_FIRST: list[Any] = [
    structlog.contextvars.merge_contextvars,
    structlog.processors.add_log_level,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
]
_PRETTY: list[Any] = [structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)]
_JSON: list[Any] = [
    structlog.processors.ExceptionRenderer(structlog.tracebacks.ExceptionDictTransformer(show_locals=False)),
    structlog.processors.JSONRenderer(),
]


@contextlib.contextmanager
def tracing(settings: TelemetrySettings, service: str) -> Iterator[None]:
    """Spans are made and exported while the body runs, when an endpoint is set. Enter it before building the app."""
    if not settings.otlp_endpoint:
        yield
        return
    provider = _tracer_provider(settings, service)
    _State.tracer = provider.get_tracer("behest")
    try:
        yield
    finally:
        _State.tracer = None
        provider.shutdown()


def _tracer_provider(settings: TelemetrySettings, service: str) -> Any:
    try:
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
        from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
    except ImportError:
        text = "telemetry.otlp_endpoint is set, but OpenTelemetry is not installed: pip install 'behest[telemetry]' or unset it"
        raise SettingsInvalid(text) from None
    resource = Resource.create({"service.name": service, "service.namespace": "behest"})
    provider = TracerProvider(resource=resource, sampler=ParentBased(TraceIdRatioBased(settings.sample_ratio)))
    insecure = not settings.otlp_endpoint.startswith("https://")
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=settings.otlp_endpoint, insecure=insecure)))
    return provider
