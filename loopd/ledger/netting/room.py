"""Netting as one: runs and discharges behind their door."""

from loopd.audit.service import AuditLog
from loopd.clock import Clock
from loopd.ledger.clearing.ports import Outbox
from loopd.ledger.clearing.service import Clearing
from loopd.ledger.netting.discharges import Discharges
from loopd.ledger.netting.ports import NodeKeys
from loopd.ledger.netting.runs import Runs
from loopd.ledger.netting.service import Netting
from loopd.ledger.netting.telling import NettingTelling
from loopd.ledger.ports import Events
from loopd.ledger.service import Ledger


def make_netting(
    ledger: Ledger, clearing: Clearing, clock: Clock, keys: NodeKeys, audit: AuditLog, events: Events, outbox: Outbox
) -> Netting:
    """The door to the runs and discharges of one ledger."""
    telling = NettingTelling(clock, audit, events, outbox)
    discharges = Discharges(ledger, clock, telling)
    return Netting(ledger, clearing, Runs(ledger, clock, keys, discharges, telling), discharges, telling)
