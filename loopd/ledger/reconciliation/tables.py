"""The SQL of a statement: the settlements and the discharges between this node and a peer, in one order."""

from loopd.database.rows import RowSource
from loopd.ledger.clearing.tables import PEER
from loopd.ledger.netting.rules import DischargeSide, DischargeState
from loopd.ledger.reconciliation.rules import Entry, EntryKind


def statement(source: RowSource, home: str, peer: str, after: int, limit: int) -> list[tuple[int, Entry]]:
    """What is or may be in a peer's books too, by its place: payments have the even ones, discharges the odd."""
    rows = source.all(
        "SELECT * FROM (SELECT 2 * number AS place, payer_node, id, state, payer_minor, payee_minor, "
        f"'settlement' AS kind FROM clearing_settlement WHERE {PEER} = :peer AND number > :after / 2 "
        "AND state IN ('prepared', 'posted') ORDER BY number LIMIT :limit) "
        "UNION ALL SELECT * FROM (SELECT 2 * number + 1, CASE side WHEN :debtor THEN :home ELSE peer END, id, "
        "CASE state WHEN :announced THEN 'prepared' ELSE 'posted' END, backing_minor, backing_minor, 'discharge' "
        "FROM netting_discharge WHERE peer = :peer AND number >= (:after + 1) / 2 AND state <> :denied "
        "ORDER BY number LIMIT :limit) ORDER BY place LIMIT :limit",
        {
            "peer": peer,
            "home": home,
            "after": after,
            "limit": limit,
            "debtor": DischargeSide.DEBTOR,
            "announced": DischargeState.ANNOUNCED,
            "denied": DischargeState.DENIED,
        },
    )
    return [
        (
            row["place"],
            Entry(
                row["payer_node"],
                row["id"],
                row["state"],
                row["payer_minor"],
                row["payee_minor"],
                EntryKind(row["kind"]),
            ),
        )
        for row in rows
    ]
