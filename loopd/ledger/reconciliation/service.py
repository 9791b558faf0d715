"""Asks a peer for its statement, and compares it with this node's."""

import asyncio
from dataclasses import replace
from typing import Any

from loopd.database import Database
from loopd.database.rows import RowSource
from loopd.ledger.clearing.messages import SETTLEMENT_PATH
from loopd.ledger.clearing.service import Clearing
from loopd.ledger.reconciliation import tables
from loopd.ledger.reconciliation.ports import StatementReads
from loopd.ledger.reconciliation.rules import Entry, compare, comparison_json, read_entry
from loopd.protocol.errors import Invalid, Unavailable
from loopd.protocol.json_text import read_json
from loopd.protocol.limits import LIST_LIMIT_MAX, STATEMENT_PAGES_MAX


class Reconciling:
    """Compares both sides' statements of one clearing account."""

    def __init__(self, node_id: str, clearing: Clearing, database: Database, reads: StatementReads) -> None:
        self._node_id = node_id
        self._clearing = clearing
        self._database = database
        self._reads = reads

    def statement(self, source: RowSource, peer: str, after: int, limit: int) -> list[tuple[int, Entry]]:
        """What is or may be in both books, in the order of this node's, with each one's place in it.

        NotFound (404) `no_ledger`, `unknown_peer`.
        """
        self._clearing.require_account(source, peer)
        return tables.statement(source, self._node_id, peer, after, limit)

    async def reconcile(self, peer: str) -> dict[str, Any]:
        """Compare now. NotFound (404) `no_ledger`, `unknown_peer`; Unavailable (503) `peer_unreachable` where the peer
        gave no statement.
        """
        self._clearing.require_account(self._database.points, peer)
        before = await self._read(peer)
        theirs = await self._ask(peer)
        ours = await self._read(peer)
        # What moved meanwhile stood otherwise here than at the moment at which the peer told of it.
        moving = {name for name in ours.keys() | before.keys() if ours.get(name) != before.get(name)}
        still = [each for each in theirs if each.name not in moving]
        compared = compare([each for name, each in ours.items() if name not in moving], still, self._node_id)
        return comparison_json(peer, replace(compared, in_flight=compared.in_flight + len(moving)))

    async def _read(self, peer: str) -> dict[tuple[str, str, str], Entry]:
        """This node's statement; other work goes on between its pages."""
        found: dict[tuple[str, str, str], Entry] = {}
        after = 0
        while page := tables.statement(self._database.points, self._node_id, peer, after, LIST_LIMIT_MAX):
            found |= {entry.name: entry for _, entry in page}
            after = page[-1][0]
            await asyncio.sleep(0)
        return found

    async def _ask(self, peer: str) -> list[Entry]:
        found: list[Entry] = []
        path = f"{SETTLEMENT_PATH}?limit={LIST_LIMIT_MAX}"
        for _ in range(STATEMENT_PAGES_MAX):
            body = await self._reads(peer, path)
            if body is None:
                break
            try:
                page = read_json(body)
                found += [read_entry(each) for each in page["results"]]
                following = page["next"]
            except (Invalid, ValueError, KeyError, TypeError, AttributeError):
                break
            if following is None:
                return found
            if not isinstance(following, str) or not following.startswith(f"{SETTLEMENT_PATH}?"):
                break
            path = following
        raise Unavailable("peer_unreachable", f"{peer} gave no statement.", retry_after_s=30)
