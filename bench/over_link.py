"""Announcements over a link: as many as the node's credit lets through, and how long each waits for its `Done`."""

import asyncio
import ssl
import time
from collections.abc import Sequence

from aiohttp import ClientSession

from bench.load import UnexpectedAnswer
from bench.messages import BenchPeer
from bench.processes import ServerProcess
from bench.rows import Sample
from loopd.crypto.keys import PublicKey
from loopd.gossip.flood import Reason
from loopd.gossip.frames import Copy, Done
from loopd.net.link import LINK_PATH, Link
from loopd.protocol.limits import LINK_BATCH_MAX_BYTES, LINK_OFFERS_MAX
from loopd.protocol.signing import API_ROOT


async def load_link(
    server: ServerProcess,
    tls: ssl.SSLContext,
    peer: BenchPeer,
    target: tuple[str, PublicKey],
    copies: Sequence[Copy],
    seconds: float,
) -> Sample:
    """Keep as many copies unsettled as a node would, until the time is over or they are used up.

    UnexpectedAnswer where one is not accepted.
    """
    url = f"https://127.0.0.1:{server.port}{API_ROOT}{LINK_PATH}"
    async with (
        ClientSession() as session,
        session.ws_connect(url, ssl=tls, max_msg_size=LINK_BATCH_MAX_BYTES) as socket,
    ):
        dialect = await peer.challenger().as_initiator(socket, *target)
        link = Link(socket, target[0], dialect, dialled=True)
        writing = asyncio.create_task(link.write())
        try:
            return await _exchange(server, link, copies, seconds)
        finally:
            writing.cancel()
            await asyncio.gather(writing, return_exceptions=True)
            await link.close()


async def _exchange(server: ServerProcess, link: Link, copies: Sequence[Copy], seconds: float) -> Sample:
    waiting = iter(copies)
    sent_s: dict[int, float] = {}
    latencies_s: list[float] = []
    cpu_started_s, started_s = server.cpu_s(), time.perf_counter()
    while True:
        now_s = time.perf_counter()
        while now_s < started_s + seconds and len(sent_s) < LINK_OFFERS_MAX and (copy := next(waiting, None)):
            sent_s[copy.number] = now_s
            link.send([copy])
        if not sent_s:
            return Sample(
                len(latencies_s), time.perf_counter() - started_s, server.cpu_s() - cpu_started_s, latencies_s
            )
        for frame in await link.receive():
            if isinstance(frame, Done):
                if frame.reason != Reason.ACCEPTED:
                    raise UnexpectedAnswer(f"a copy was settled as {frame.reason}")
                latencies_s.append(time.perf_counter() - sent_s.pop(frame.number))
