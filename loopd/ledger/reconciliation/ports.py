"""What reconciliation needs of the rest of the node, as it sees it."""

from typing import Protocol


class StatementReads(Protocol):
    """Asks another node."""

    async def __call__(self, node_id: str, path: str) -> bytes | None:
        """The body of a 200 to a signed GET of `path` (from `/api/v1` on), or None where none came."""
        ...
