"""The load generator's connections: TLS, compression and pings, as a server or a proxy sees them."""

from __future__ import annotations

import json
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from cluster import wait_until
from fault_proxy import DATA, HEADER_BYTES, FaultProxy, Faults, Frame, Ruling
from load_server import PROTO, SERVICE, Behaviour, LoadServer

from agentmem.bench.load.command import main

PING = 6
CALLS = 5
ONE_CALL = ("--call", f"{SERVICE}/Echo", "-n", "1", "-c", "1", "--connect-timeout", "500ms")


def load(address: str, out: Path, *words: str) -> dict[str, Any]:
    options = ["--call", f"{SERVICE}/Echo", "-n", str(CALLS), "-c", "1", "-O", "json", "-o", str(out)]
    assert main([*options, *words, address]) == 0
    report: dict[str, Any] = json.loads(out.read_text(encoding="utf-8"))
    return report


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The path, without its end, of a key and a certificate of "memory.test", signed by itself."""
    if shutil.which("openssl") is None:
        pytest.skip("makes a certificate with openssl, which is not installed")
    path = tmp_path_factory.mktemp("tls") / "memory"
    command = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-noenc",
        "-days",
        "2",
        "-subj",
        "/CN=memory.test",
    ]
    command += ["-addext", "subjectAltName=DNS:memory.test"]
    subprocess.run(
        [*command, "-keyout", f"{path}.key", "-out", f"{path}.pem"], check=True, capture_output=True
    )
    return path


@pytest.fixture(params=[False, True], ids=["tls", "mutual tls"])
def secure(certificate: Path, request: pytest.FixtureRequest) -> Iterator[tuple[LoadServer, bool]]:
    """A server that shows the certificate, and one that asks its callers for it, too."""
    key, chain = (certificate.with_suffix(end).read_bytes() for end in (".key", ".pem"))
    credentials = grpc.ssl_server_credentials(
        [(key, chain)], root_certificates=chain, require_client_auth=request.param
    )
    with LoadServer(credentials=credentials) as server:
        yield server, request.param


def test_tls_and_a_client_certificate(
    secure: tuple[LoadServer, bool], certificate: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server, is_mutual = secure
    words = ["--cacert", f"{certificate}.pem", "--cname", "memory.test"]
    if is_mutual:
        assert main([*ONE_CALL, *words, server.address]) == 2
        assert "host: no connection to" in capsys.readouterr().err
        words += ["--cert", f"{certificate}.pem", "--key", f"{certificate}.key"]
    report = load(server.address, tmp_path / "report.json", *words)
    assert report["statusCodeDistribution"] == {"OK": CALLS}
    assert len(server.received) == CALLS


@pytest.mark.parametrize("words", [[], ["--cacert", "{certificate}.pem"]], ids=["stranger", "other name"])
def test_a_server_that_is_not_who_it_should_be_is_refused(
    secure: tuple[LoadServer, bool], words: list[str], certificate: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server, _ = secure
    words = [word.format(certificate=certificate) for word in words]
    assert main([*ONE_CALL, *words, server.address]) == 2
    assert f"host: no connection to {server.address}" in capsys.readouterr().err
    assert not server.received


@pytest.mark.parametrize("words", [[], ["--enable-compression"]])
def test_compression_is_what_goes_over_the_line(words: list[str], tmp_path: Path) -> None:
    flags = []

    def note(frame: Frame) -> Ruling | None:
        if frame.kind == DATA and frame.messages:
            flags.append(frame.raw[HEADER_BYTES])
        return None

    text = "memory " * 100
    with LoadServer() as server, FaultProxy(server.address, lambda number: Faults(to_server=note)) as proxy:
        data = json.dumps({"text": text})
        report = load(
            proxy.address, tmp_path / "report.json", "--insecure", "-d", data, *words, "--proto", str(PROTO)
        )
        assert report["statusCodeDistribution"] == {"OK": CALLS}
        assert [call.texts for call in server.received] == [[text]] * CALLS
    assert flags == [bool(words)] * CALLS


def test_pings_keep_a_connection(tmp_path: Path) -> None:
    pings: list[Frame] = []

    def note(frame: Frame) -> Ruling | None:
        is_acknowledgement = frame.raw[4] & 1
        if frame.kind == PING and not is_acknowledgement and server.received:
            pings.append(frame)
        return None

    with (
        LoadServer(Behaviour(held=True)) as server,
        FaultProxy(server.address, lambda number: Faults(to_server=note)) as proxy,
    ):

        def release() -> None:
            # gRPC sends few of them while there is nothing else to send.
            wait_until(lambda: bool(pings), "a ping while a call waits for its answer")
            server.release()

        releasing = threading.Thread(target=release)
        releasing.start()
        report = load(proxy.address, tmp_path / "report.json", "--insecure", "--keepalive", "20ms")
        releasing.join()
    assert report["statusCodeDistribution"] == {"OK": CALLS}
