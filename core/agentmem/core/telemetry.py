"""The way to OpenTelemetry: what is measured goes out to Prometheus and OTLP.

This is the only module of the servers that imports opentelemetry and prometheus_client. It is loaded when
somebody scrapes, or when there is an OTLP endpoint: that takes 0.15 s. OpenTelemetry's own counters and
histograms cost some 6 µs a value in Python, more than all else that is measured of a call; so values
are kept in ``measurements.py``, and handed over when they are collected.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

from opentelemetry.context import Context
from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.metrics import CallbackOptions, Observation
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    HistogramDataPoint,
    MetricsData,
    PeriodicExportingMetricReader,
)
from opentelemetry.sdk.metrics.export import Histogram as HistogramData
from opentelemetry.sdk.metrics.export import Metric as MetricData
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.trace import (
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    StatusCode,
    TraceFlags,
    set_span_in_context,
)
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from agentmem.core.metrics import METRICS, Metric
from agentmem.core.node_metrics import NodeMetrics
from agentmem.core.spans import FinishedSpan, SpanSink

__all__ = ["METRICS", "OtlpMetrics", "OtlpSpans", "PrometheusText"]

OTLP_INTERVAL_S = 15.0
OTLP_TIMEOUT_S = 2.0
SPAN_INTERVAL_S = 1.0
MAX_WAITING_SPANS = 4096
SCOPE = "agentmem"


def _resource(node: str, node_id: str) -> Resource:
    """Who measures."""
    return Resource.create({"service.name": f"agentmem-{node}", "service.instance.id": node_id})


class _Handover:
    """Takes what was measured over into OpenTelemetry, for one reader."""

    def __init__(self, metrics: NodeMetrics) -> None:
        self._metrics = metrics
        self._values: Mapping[str, Mapping[tuple[str, ...], float]] = {}
        self._began_ns = time.time_ns()

    def look(self) -> None:
        """Takes the values as they are now, all at once."""
        self._values = self._metrics.values()

    def provide(self, reader: PrometheusMetricReader | PeriodicExportingMetricReader) -> MeterProvider:
        """A provider with an observable instrument for each counter and gauge of the table."""
        provider = MeterProvider(
            [reader], resource=_resource(self._metrics.node, self._metrics.node_id), shutdown_on_exit=False
        )
        meter = provider.get_meter(SCOPE)
        for metric in self._metrics.table.values():
            if metric.kind == "histogram":
                continue
            create = (
                meter.create_observable_counter if metric.kind == "counter" else meter.create_observable_gauge
            )
            create(
                metric.name,
                callbacks=[partial(self._observe, metric)],
                unit=metric.unit,
                description=metric.text,
            )
        return provider

    def _observe(self, metric: Metric, options: CallbackOptions) -> Iterable[Observation]:
        for labels, value in self._values.get(metric.name, {}).items():
            yield Observation(value, dict(zip(metric.labels, labels, strict=True)))

    def add_histograms(self, data: MetricsData) -> None:
        """The SDK has no histogram that is observed; so these are put in where its own would be."""
        now_ns = time.time_ns()
        found: list[MetricData] = []
        for name, histogram in self._metrics.histograms.items():
            metric = self._metrics.table[name]
            points = [
                HistogramDataPoint(
                    attributes=dict(zip(metric.labels, labels, strict=True)),
                    start_time_unix_nano=self._began_ns,
                    time_unix_nano=now_ns,
                    count=sum(distribution.counts),
                    sum=distribution.total,
                    bucket_counts=distribution.counts,
                    explicit_bounds=histogram.bounds,
                    # Of the whole life of the process they would say nothing.
                    min=None,  # type: ignore[arg-type]
                    max=None,  # type: ignore[arg-type]
                )
                for labels, distribution in histogram.distributions().items()
            ]
            if points:
                values = HistogramData(points, AggregationTemporality.CUMULATIVE)
                found.append(MetricData(name, metric.text, metric.unit, values))
        # There is one of each, for there is one resource and one meter.
        for resource_metrics in data.resource_metrics:
            for scope_metrics in resource_metrics.scope_metrics:
                list_of(scope_metrics.metrics).extend(found)


def list_of(metrics: Any) -> list[MetricData]:
    """What the SDK declares as a sequence and makes as a list. Raises TypeError when that has changed."""
    if not isinstance(metrics, list):
        raise TypeError(f"the SDK gives metrics as {type(metrics).__name__}")
    return metrics


class _ScrapedReader(PrometheusMetricReader):
    def __init__(self, handover: _Handover, registry: CollectorRegistry) -> None:
        self._handover = handover
        super().__init__(scope_info_enabled=False, registry=registry)

    def _receive_metrics(
        self, metrics_data: MetricsData, timeout_millis: float = 10_000, **kwargs: Any
    ) -> None:
        self._handover.add_histograms(metrics_data)
        super()._receive_metrics(metrics_data, timeout_millis, **kwargs)


class PrometheusText:
    """The metrics in Prometheus's text formats."""

    def __init__(self, metrics: NodeMetrics) -> None:
        # While it is registered, a reader is asked what it has; so the registry does not ask.
        self._registry = CollectorRegistry(auto_describe=False)
        self._handover = _Handover(metrics)
        self._provider = self._handover.provide(_ScrapedReader(self._handover, self._registry))

    def scrape(self, accept: str) -> tuple[bytes, str]:
        """The text as of now, and its content type, for what an Accept header allows. One at a time."""
        encode: Callable[[CollectorRegistry], bytes]
        encode, content_type = choose_encoder(accept)
        self._handover.look()
        return encode(self._registry), content_type


class _PushingReader(PeriodicExportingMetricReader):
    def __init__(self, handover: _Handover, endpoint: str) -> None:
        from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter

        self._handover = handover
        exporter = OTLPMetricExporter(endpoint=endpoint, insecure=True, timeout=OTLP_TIMEOUT_S)
        # Not by a clock of its own: the values have to be taken before each time.
        super().__init__(exporter, math.inf, OTLP_TIMEOUT_S * 1000)

    def _receive_metrics(
        self, metrics_data: MetricsData, timeout_millis: float = 10_000, **kwargs: Any
    ) -> None:
        self._handover.add_histograms(metrics_data)
        super()._receive_metrics(metrics_data, timeout_millis, **kwargs)


class OtlpMetrics:
    """Sends the metrics to an OTLP endpoint every OTLP_INTERVAL_S, and at the end."""

    def __init__(self, metrics: NodeMetrics, endpoint: str) -> None:
        self._handover = _Handover(metrics)
        self._reader = _PushingReader(self._handover, endpoint)
        self._provider = self._handover.provide(self._reader)
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="otlp", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        is_last = False
        while not is_last:
            is_last = self._closing.wait(OTLP_INTERVAL_S)
            self._handover.look()
            self._reader.collect()

    def close(self) -> None:
        """Sends what there is; may take long when the collector is silent."""
        self._closing.set()
        self._thread.join()


class _Ids(RandomIdGenerator):
    """Lets a span have the ids that were told to others before it was made."""

    def __init__(self) -> None:
        self.trace_id = self.span_id = 0

    def generate_trace_id(self) -> int:
        given, self.trace_id = self.trace_id, 0
        return given or super().generate_trace_id()

    def generate_span_id(self) -> int:
        given, self.span_id = self.span_id, 0
        return given or super().generate_span_id()


class OtlpSpans(SpanSink):
    """Sends spans to an OTLP endpoint, from a thread of the SDK. Any thread may record.

    At most MAX_WAITING_SPANS wait; what comes then is dropped, and the SDK says so in the log.
    """

    def __init__(self, node: str, node_id: str, endpoint: str) -> None:
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter

        self._ids = _Ids()
        self._lock = threading.Lock()
        self._provider = TracerProvider(
            # What is sampled is decided where a call begins.
            sampler=ALWAYS_ON,
            resource=_resource(node, node_id),
            id_generator=self._ids,
            shutdown_on_exit=False,
        )
        exporter = OTLPSpanExporter(endpoint=endpoint, insecure=True, timeout=OTLP_TIMEOUT_S)
        self._provider.add_span_processor(
            BatchSpanProcessor(
                exporter, max_queue_size=MAX_WAITING_SPANS, schedule_delay_millis=SPAN_INTERVAL_S * 1000
            )
        )
        self._tracer = self._provider.get_tracer(SCOPE)

    def record(self, span: FinishedSpan) -> None:
        offset_ns = time.time_ns() - time.perf_counter_ns()

        def at(seconds: float) -> int:
            return offset_ns + int(seconds * 1e9)

        trace_id = int(span.context.trace_id, 16)
        # Nothing is current here: the SDK's own context is not used.
        within = Context()
        if span.parent_span_id:
            parent = SpanContext(trace_id, int(span.parent_span_id, 16), True, TraceFlags(TraceFlags.SAMPLED))
            within = set_span_in_context(NonRecordingSpan(parent), within)
        with self._lock:
            self._ids.trace_id = 0 if span.parent_span_id else trace_id
            self._ids.span_id = int(span.context.span_id, 16)
            recorded = self._tracer.start_span(
                span.name,
                context=within,
                kind=SpanKind.SERVER if span.is_server else SpanKind.INTERNAL,
                attributes=span.attributes,
                start_time=at(span.began_s),
            )
            if span.is_failed:
                recorded.set_status(StatusCode.ERROR)
            for name, began_s, ended_s in span.stages:
                child = self._tracer.start_span(
                    name, context=set_span_in_context(recorded), start_time=at(began_s)
                )
                child.end(at(ended_s))
            recorded.end(at(span.ended_s))

    def close(self) -> None:
        """Sends what waits; may take long when the collector is silent."""
        self._provider.shutdown()
