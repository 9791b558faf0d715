"""Payments through a running node's API: one holder with a token, many connections."""

import itertools
import json
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path

from bench.load import http_request, load
from bench.messages import CONTEXT, LD_JSON
from bench.processes import free_port, loopd, running
from bench.rows import Sample
from loopd.net.tls import DevelopmentAuthority, client_context
from loopd.protocol.signing import API_ROOT

NODE = "linz.loop"
PAYER, PAYEE = f"user:payer@{NODE}", f"user:payee@{NODE}"


def payments(token: str) -> Iterator[bytes]:
    """Requests that pay 0.01 each, without end."""
    headers = {"Authorization": f"Bearer {token}", "Content-Type": LD_JSON}
    for number in itertools.count():
        order = {
            "@context": CONTEXT,
            "@type": "LoopCoinTransfer",
            "id": f"00000000-0000-4000-8000-{number:012x}",
            "from": PAYER,
            "to": PAYEE,
            "amount": 0.01,
            "currency": "LC-LNZ",
            "timestamp": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        }
        yield http_request("POST", f"{API_ROOT}/loopcoin/transfers", headers, json.dumps(order).encode())


async def measure_api(root: Path, seconds: float, connections: int) -> Sample:
    """So many clients that pay for so long."""
    directory, port = root / "linz", free_port()
    authority = DevelopmentAuthority.open_or_create(root / "ca", datetime.now(UTC))
    loopd(
        *("init", directory, "--node-id", NODE, "--name", "Linz", "--city", "Linz", "--country", "AT"),
        *("--lat", "48.3069", "--lon", "14.2858", "--listen", f"127.0.0.1:{port}"),
        *("--endpoint", f"https://127.0.0.1:{port}{API_ROOT}", "--dev", "--ca", root / "ca"),
    )
    settings = directory / "loopd.toml"
    text = settings.read_text(encoding="utf-8")
    settings.write_text(text.replace("[ledger]\n", '[ledger]\ncurrency_code = "LC-LNZ"\n'), encoding="utf-8")
    with ExitStack() as stack:
        server = stack.enter_context(running(("loopd", "run", directory), port, root / "linz.log"))
        for account in (PAYER, PAYEE):
            loopd("ledger", "account", "add", directory, account)
        loopd("ledger", "issue", directory, PAYER, "1000000", "--backing", "1000000")
        token = loopd("token", "create", directory, "--scope", "account", "--account", PAYER)
        tls = client_context(authority.certificate_file)
        return await load(server, tls, payments(token), 201, connections, seconds)
