"""The accounts that other commands name: whether the ledger of this node has them."""

from urllib.parse import quote

from loopd.cli.admin_client import AdminRefused, call
from loopd.cli.failure import Failure
from loopd.directory import NodeDirectory

_MISSING = ("unknown_account", "no_ledger", "not_found")


def account_path(account_id: str) -> str:
    """Where the API has an account."""
    return f"/api/v1/loopcoin/accounts/{quote(account_id, safe=':@')}"


def require_account(directory: NodeDirectory, account_id: str) -> None:
    """Failure, which names the account, where the running node has none of that id."""
    try:
        call(directory, "GET", account_path(account_id))
    except AdminRefused as refusal:
        if refusal.reason not in _MISSING:
            raise
        raise Failure(f"{account_id}: {refusal.message}\n  loopd ledger account list {directory.root}") from None
