"""Options as they were given, checked one by one."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from agentmem.bench.load.durations import parse_duration_ns
from agentmem.bench.load.errors import LoadError
from agentmem.bench.load.options import DEFAULT_CONCURRENCY, DEFAULT_TOTAL, Options
from agentmem.bench.load.schedules import KINDS, Ramp

MAX_CONCURRENCY = 10_000
MAX_CONNECTIONS = 1_000
MAX_PROCESSES = 64
FORMATS = ("summary", "csv", "json", "pretty", "html", "prometheus")
DURATION_STOPS = ("close", "wait", "ignore")


class Checked:
    """Takes options by name, each checked."""

    def __init__(self, given: dict[str, Any]) -> None:
        self._given = given

    def options(self) -> Options:
        asynchronous, load = self._flag("async"), self._load()
        if asynchronous and load is None:
            raise LoadError("async: needs rps or load-schedule, which say when to send")
        duration_ns, processes = self._duration("duration"), self._number("processes", 1, 1, MAX_PROCESSES)
        concurrency, connections = (
            self._concurrency(),
            self._number("connections", processes, 1, MAX_CONNECTIONS),
        )
        total = self._number("total", DEFAULT_TOTAL, 1)
        if duration_ns and self._duration("max-duration"):
            raise LoadError("max-duration: give duration or max-duration, not both")
        if (
            not duration_ns
            and concurrency.kind == "const"
            and total < concurrency.start
            and "total" in self._given
        ):
            raise LoadError(f"total: {total} requests are fewer than the concurrency of {concurrency.start}")
        if connections < processes:
            raise LoadError(f"connections: {connections} are fewer than the {processes} processes")
        if concurrency.start < processes and not asynchronous:
            raise LoadError(f"processes: {processes} are more than the concurrency of {concurrency.start}")
        if bool(self._text("cert")) != bool(self._text("key")):
            raise LoadError("cert: cert and key belong together")
        call = self._text("call")
        if not call:
            raise LoadError("call: say which method to call, as package.Service/Method")
        data, binary = self._data()
        return Options(
            hosts=self._hosts(),
            call=call,
            proto=self._text("proto"),
            protoset=self._text("protoset"),
            import_paths=self._paths(),
            cacert=self._text("cacert"),
            cert=self._text("cert"),
            key=self._text("key"),
            cname=self._text("cname"),
            insecure=self._flag("insecure"),
            authority=self._text("authority"),
            enable_compression=self._flag("enable-compression"),
            load=load,
            asynchronous=asynchronous,
            concurrency=concurrency,
            total=None if duration_ns else total,
            duration_ns=duration_ns,
            max_duration_ns=self._duration("max-duration"),
            duration_stop=self._choice("duration-stop", DURATION_STOPS),
            timeout_ns=self._duration("timeout", 20 * 10**9),
            connect_timeout_ns=self._duration("connect-timeout", 10 * 10**9),
            keepalive_ns=self._duration("keepalive"),
            stream_interval_ns=self._duration("stream-interval"),
            data=data,
            binary_data=binary,
            metadata=self._pairs("metadata", self._file("metadata-file") or None),
            reflect_metadata=self._pairs("reflect-metadata"),
            output=self._text("output"),
            format=self._choice("format", FORMATS),
            skip_first=self._number("skipFirst", 0, 0),
            count_errors=self._flag("count-errors"),
            connections=connections,
            name=self._text("name"),
            tags=self._pairs("tags"),
            processes=processes,
            warmup_ns=self._duration("warmup"),
            seed=self._number("seed", 1, 0),
        )

    def _get(self, option: str, default: Any) -> Any:
        return self._given.get(option.replace("-", "_"), default)

    def _text(self, option: str) -> str:
        value = self._get(option, "")
        if not isinstance(value, str):
            raise LoadError(f"{option}: {value!r} is not a text")
        return value

    def _flag(self, option: str) -> bool:
        value = self._get(option, False)
        if not isinstance(value, bool):
            raise LoadError(f"{option}: {value!r} is not true or false")
        return value

    def _number(self, option: str, default: int, least: int | None = None, most: int | None = None) -> int:
        value = self._get(option, default)
        if not isinstance(value, int) or isinstance(value, bool):
            raise LoadError(f"{option}: {value!r} is not a whole number")
        if (least is not None and value < least) or (most is not None and value > most):
            limits = f"at least {least}" if most is None else f"from {least} to {most}"
            raise LoadError(f"{option}: must be {limits}, not {value}")
        return value

    def _duration(self, option: str, default_ns: int = 0) -> int:
        value = self._get(option, None)
        if value is None:
            return default_ns
        if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
            return value  # ghz's config files may have ns as well
        return (
            parse_duration_ns(value, option) if isinstance(value, str) else self._no_duration(option, value)
        )

    def _no_duration(self, option: str, value: Any) -> int:
        raise LoadError(f"{option}: {value!r} is not a duration like 10s, 1m30s or 100ms")

    def _choice(self, option: str, choices: Sequence[str]) -> str:
        value = self._text(option) or choices[0]
        if value not in choices:
            raise LoadError(f"{option}: {value!r} is none of {', '.join(choices)}")
        return value

    def _hosts(self) -> tuple[str, ...]:
        hosts = tuple(host.strip() for host in self._text("host").split(","))
        if not all(hosts):
            raise LoadError("host: say whom to call, as host:port")
        return hosts

    def _paths(self) -> tuple[str, ...]:
        paths = self._get("import-paths", "")
        if isinstance(paths, str):
            paths = paths.split(",") if paths else []
        if not isinstance(paths, list) or not all(isinstance(path, str) for path in paths):
            raise LoadError("import-paths: not a list of folders")
        return tuple(paths)

    def _ramp(self, prefix: str, default: int, option: str) -> Ramp:
        """A schedule. `option` is the level's own option, which const has alone."""
        kind = self._choice(f"{prefix}-schedule", KINDS)
        names = ("start", "step", "end", "step-duration", "max-duration")
        given = [name for name in names if f"{prefix}-{name}".replace("-", "_") in self._given]
        if kind == "const":
            if given:
                raise LoadError(f"{prefix}-{given[0]}: belongs to {prefix}-schedule step or line")
            return Ramp("const", self._number(option, default, 0))
        ramp = Ramp(
            kind,
            self._number(f"{prefix}-start", 0, 0),
            self._number(f"{prefix}-step", 0),
            self._number(f"{prefix}-end", 0, 0),
            self._duration(f"{prefix}-step-duration"),
            self._duration(f"{prefix}-max-duration"),
        )
        if ramp.start == 0:
            raise LoadError(f"{prefix}-start: must be at least 1 for a {kind} schedule")
        if ramp.step == 0:
            raise LoadError(f"{prefix}-step: must not be 0 for a {kind} schedule")
        if kind == "step" and ramp.step_duration_ns == 0:
            raise LoadError(f"{prefix}-step-duration: must be more than 0 for a step schedule")
        if ramp.end and (ramp.end < ramp.start if ramp.step > 0 else ramp.end > ramp.start):
            raise LoadError(
                f"{prefix}-end: {ramp.end} is not reached from {ramp.start} by steps of {ramp.step}"
            )
        return ramp

    def _load(self) -> Ramp | None:
        ramp = self._ramp("load", 0, "rps")
        if ramp.kind != "const" and self._get("rps", 0):
            raise LoadError("rps: give rps or load-schedule, not both")
        return ramp if ramp.start else None

    def _concurrency(self) -> Ramp:
        ramp = self._ramp("concurrency", DEFAULT_CONCURRENCY, "concurrency")
        highest = ramp.highest()
        if highest is None:
            raise LoadError(
                "concurrency-end: needed, or concurrency-max-duration: else the workers rise without end"
            )
        if not 1 <= highest <= MAX_CONCURRENCY:
            raise LoadError(f"concurrency: must be from 1 to {MAX_CONCURRENCY}, not {highest}")
        return ramp

    def _file(self, option: str) -> str:
        path = self._text(option)
        try:
            return Path(path).read_text(encoding="utf-8") if path else ""
        except (OSError, UnicodeError) as error:
            raise LoadError(f"{option}: {error}") from error

    def _data(self) -> tuple[str, bytes]:
        """The request as JSON, or as a serialized message. At most one option may give it."""
        given = [name for name in ("data", "data-file", "binary", "binary-file") if self._get(name, "")]
        if len(given) > 1:
            raise LoadError(f"{given[1]}: give {given[0]} or {given[1]}, not both")
        if self._flag("binary"):
            return "{}", sys.stdin.buffer.read()
        if path := self._text("binary-file"):
            try:
                return "{}", Path(path).read_bytes()
            except OSError as error:
                raise LoadError(f"binary-file: {error}") from error
        value = self._get("data", "")
        if value == "@":
            return sys.stdin.read(), b""
        # In a config file it is an object, not a text.
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        return text or self._file("data-file") or "{}", b""

    def _pairs(self, option: str, text: str | None = None) -> tuple[tuple[str, str], ...]:
        value = self._get(option, "") if text is None else text
        if isinstance(value, str):
            try:
                value = json.loads(value) if value else {}
            except ValueError as error:
                raise LoadError(f"{option}: not JSON: {error}") from error
        if not isinstance(value, dict) or not all(isinstance(one, str) for one in value.values()):
            raise LoadError(f"{option}: not an object of texts")
        return tuple(value.items())
