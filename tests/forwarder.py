"""Leads from an address to another: ``python forwarder.py LISTEN TARGET``, until it is killed."""

from __future__ import annotations

import asyncio
import contextlib
import sys

PIECE_BYTES = 64 * 1024


async def _pass_on(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await source.read(PIECE_BYTES):
            sink.write(data)
            await sink.drain()
    sink.close()


async def _serve(target: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    host, _, port = target.rpartition(":")
    try:
        far_reader, far_writer = await asyncio.open_connection(host, int(port))
    except OSError:
        writer.close()
        return
    await asyncio.gather(_pass_on(reader, far_writer), _pass_on(far_reader, writer))


async def main(listen: str, target: str) -> None:
    host, _, port = listen.rpartition(":")
    server = await asyncio.start_server(
        lambda reader, writer: _serve(target, reader, writer), host, int(port)
    )
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2]))
