"""The command line and the config files: ghz's names."""

import argparse
import json
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from agentmem.bench.load.checks import FORMATS, Checked
from agentmem.bench.load.errors import LoadError
from agentmem.bench.load.options import DEFAULT_CONCURRENCY, DEFAULT_TOTAL, Options


def parser() -> argparse.ArgumentParser:
    """The names of ghz's options; a config file has the long ones as its keys."""
    parser = argparse.ArgumentParser(
        prog="python -m agentmem.bench load",
        description="Calls a gRPC method many times and reports its latencies, as ghz does.",
        argument_default=argparse.SUPPRESS,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("host", nargs="?", help="host:port, or several with commas between them")
    add(
        "--config",
        metavar="FILE",
        help="JSON or TOML file with these options; the command line comes before it",
    )

    add("--call", metavar="NAME", help="package.Service/Method or package.Service.Method")
    add(
        "--proto",
        metavar="FILE",
        help="the .proto file; without it and protoset the server is asked (reflection)",
    )
    add("--protoset", metavar="FILE", help="a compiled protoset")
    add("-i", "--import-paths", metavar="PATHS", help="where imports of the .proto file are, with commas")
    add("--reflect-metadata", metavar="JSON", help="metadata of the reflection call")

    add("--insecure", action="store_true", help="plaintext")
    add("--cacert", metavar="FILE", help="trusted root certificates; default the system's")
    add("--cert", metavar="FILE", help="client certificate; needs key")
    add("--key", metavar="FILE", help="client private key; needs cert")
    add("--cname", metavar="NAME", help="the name that the server's certificate must have")
    add("--authority", metavar="NAME", help=":authority of the calls")
    add("-e", "--enable-compression", action="store_true", help="gzip")

    add("-c", "--concurrency", type=int, metavar="N", help=f"workers (default {DEFAULT_CONCURRENCY})")
    add("-n", "--total", type=int, metavar="N", help=f"requests (default {DEFAULT_TOTAL})")
    add("-z", "--duration", metavar="TIME", help="send for so long; total is ignored")
    add("-x", "--max-duration", metavar="TIME", help="send total requests, but for no longer than this")
    add("--duration-stop", metavar="HOW", help="calls under way at the end: close (default), wait or ignore")
    add("-t", "--timeout", metavar="TIME", help="of each call (default 20s, 0 for none)")
    add("-r", "--rps", type=int, metavar="N", help="requests per second (default 0: as fast as answers come)")
    add(
        "--async",
        action="store_true",
        dest="async",
        help="send when due, whether calls before are answered or not",
    )
    for name, what in (("load", "requests per second"), ("concurrency", "workers")):
        add(f"--{name}-schedule", metavar="KIND", help=f"{what}: const (default), step or line")
        add(f"--{name}-start", type=int, metavar="N", help=f"{what} at first")
        add(f"--{name}-step", type=int, metavar="N", help="change of a step, or each second of a line")
        add(f"--{name}-end", type=int, metavar="N", help=f"{what} at last")
        add(f"--{name}-step-duration", metavar="TIME", help="length of a step")
        add(f"--{name}-max-duration", metavar="TIME", help="no change after this")

    add(
        "-d", "--data", metavar="JSON", help="the request, or an array of them; template actions; @ for stdin"
    )
    add("-D", "--data-file", metavar="FILE", help="the same from a file")
    add("-b", "--binary", action="store_true", help="the request as a serialized message from stdin")
    add("-B", "--binary-file", metavar="FILE", help="the same from a file")
    add("-m", "--metadata", metavar="JSON", help="metadata of each call; template actions")
    add("-M", "--metadata-file", metavar="FILE", help="the same from a file")
    add("--stream-interval", metavar="TIME", help="between the messages of a client stream")

    add("-O", "--format", metavar="FORMAT", help=f"{', '.join(FORMATS)}")
    add("-o", "--output", metavar="FILE", help="default stdout")
    add("--skipFirst", type=int, metavar="N", help="leave the first N answers out of the report")
    add("--count-errors", action="store_true", help="failed calls count for latencies, too")
    add("--connections", type=int, metavar="N", help="TCP connections (default: one for each process)")
    add("--connect-timeout", metavar="TIME", help="default 10s")
    add("--keepalive", metavar="TIME", help="default 0: none")
    add("--name", metavar="TEXT", help="of the test, for the report")
    add("--tags", metavar="JSON", help="names and values for the report")

    more = parser.add_argument_group("beyond ghz").add_argument
    more("--processes", type=int, metavar="N", help="generator processes (default 1)")
    more("--warmup", metavar="TIME", help="call for so long before the run, and report none of it")
    more("--seed", type=int, metavar="N", help="of randomString and randomInt (default 1)")
    return parser


def read_options(words: Sequence[str]) -> Options:
    """Raises LoadError naming the option; argparse ends the process on words it does not know."""
    given = vars(parser().parse_args(words))
    if "config" in given:
        given = _read_config(given.pop("config")) | given
    return Checked(given).options()


# Keys of ghz's config files that mean nothing here, with why.
_REFUSED = {
    "skipTLS": "gRPC for Python always verifies the server: give its certificate as cacert, its name cname",
    "cpus": "use processes",
    "lb-strategy": "name the hosts, with commas between them",
    "debug": "there is no such log",
    "stream-call-duration": "streams are read to their end",
    "stream-call-count": "streams are read to their end",
    "stream-dynamic-messages": "the messages of a stream are built when it is called",
}


def _read_config(path: str) -> dict[str, Any]:
    try:
        text = Path(path).read_text(encoding="utf-8")
        config = tomllib.loads(text) if path.endswith(".toml") else json.loads(text)
    except (OSError, ValueError) as error:
        raise LoadError(f"config: {path}: {error}") from error
    if not isinstance(config, dict):
        raise LoadError(f"config: {path}: not an object")
    known = {action.option_strings[-1].lstrip("-") for action in parser()._actions if action.option_strings}
    known = (known | {"host"}) - {"config", "help", "binary"}
    for key in config:
        if key in _REFUSED:
            raise LoadError(f"config: {path}: {key} is not supported: {_REFUSED[key]}")
        if key not in known:
            raise LoadError(f"config: {path}: no option {key}")
    return {key.replace("-", "_"): value for key, value in config.items()}
