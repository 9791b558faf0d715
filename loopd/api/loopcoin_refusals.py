"""How the ledger's routes list what they refuse, and note in the log what they have refused."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import structlog

from loopd.ledger.refusals import Fault
from loopd.protocol.errors import Refusal

log = structlog.get_logger(__name__)


def refusals(faults: Sequence[Fault], more: Mapping[int, Sequence[str]] | None = None) -> dict[int, tuple[str, ...]]:
    """Faults as a route lists them, the reasons by their status; `more` has further ones."""
    found: dict[int, tuple[str, ...]] = {404: ("no_ledger",)}
    for fault in faults:
        found[fault.status] = (*found.get(fault.status, ()), fault.reason)
    for status, reasons in (more or {}).items():
        found[status] = (*found.get(status, ()), *reasons)
    return found


@contextmanager
def refusal_logged(transfer_id: str | None) -> Iterator[None]:
    """A refusal of what is asked of a transfer leaves a line with its reason in the log.

    The id is None where it names no transfer and was not held against a schema: it could be anything.
    """
    try:
        yield
    except Refusal as refusal:
        log.info("transfer_refused", transfer=transfer_id and transfer_id.lower(), reason=refusal.reason)
        raise
