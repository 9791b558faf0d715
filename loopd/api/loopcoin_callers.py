"""Who asks at the ledger's routes, and how an account's holder is shown: by a token, or by the account's key."""

from typing import Final

from loopd.api.requests import ANONYMOUS, Principal, Request
from loopd.crypto.keys import PublicKey, decode_signature
from loopd.ledger.authority import Authority
from loopd.ledger.refusals import Fault, refused
from loopd.protocol.errors import Forbidden, Unauthorized
from loopd.protocol.limits import REQUEST_CLOCK_TOLERANCE_MS
from loopd.protocol.timestamps import parse_timestamp

ACCOUNT_TIMESTAMP: Final = "X-Account-Timestamp"
ACCOUNT_SIGNATURE: Final = "X-Account-Signature"
# What a holder's key must show before it is told anything of its account.
READ_REFUSALS: Final = {401: ("bad_signature", "clock_skew"), 403: ("not_yours",)}
_READ_VERSION: Final = "loop-account-read-v1"


def authority_of(request: Request) -> Authority:
    """What the caller's token says."""
    return Authority(request.principal.account, "admin" in request.principal.scopes)


def reading_string(target: str, timestamp: str) -> bytes:
    """What the key of an account signs to read it: version, path with query, and time, joined by LF."""
    return "\n".join((_READ_VERSION, target, timestamp)).encode()


def check_reader(request: Request, account_id: str, public_key: str | None, now_ms: int) -> bool:
    """Whether the caller is more than the public to this account.

    Forbidden `not_yours` where the public sees nothing of it, whether it exists or not; Unauthorized `bad_signature`,
    `clock_skew` for a signature that does not hold.
    """
    authority = authority_of(request)
    if authority.operator or authority.account == account_id or _signed(request, public_key, now_ms):
        return True
    if authority.sees(account_id):
        return False
    raise Forbidden("not_yours", "An account is shown to its holder: by a token bound to it, or its key's signature.")


def check_buyer(request: Request, account_id: object) -> None:
    """Forbidden `not_authorised` unless the caller may have an account pay for what it buys, where one is named.

    That takes a token bound to the account, or the operator's: the office may buy for a holder who came to its desk.
    """
    authority = authority_of(request)
    if account_id is not None and not authority.operator and authority.account != account_id:
        raise refused(Fault.NOT_AUTHORISED, {"pointer": "/buyer_account"})


def identify(request: Request, account_id: str) -> None:
    """Count an order that its signature authorises as its payer's, so that idempotency keys are each payer's own."""
    if request.principal is ANONYMOUS:
        request.principal = Principal(f"account:{account_id}")


def _signed(request: Request, public_key: str | None, now_ms: int) -> bool:
    stated, timestamp = request.headers.get(ACCOUNT_SIGNATURE), request.headers.get(ACCOUNT_TIMESTAMP)
    if stated is None or timestamp is None or public_key is None:
        return False
    try:
        skew_ms = abs(now_ms - parse_timestamp(timestamp))
        signature = decode_signature(stated)
    except ValueError:
        raise Unauthorized("bad_signature", "The account's signature or its time cannot be read.") from None
    if skew_ms > REQUEST_CLOCK_TOLERANCE_MS:
        raise Unauthorized("clock_skew", "The request is too old or too new.")
    if not PublicKey.from_pem(public_key).verify(reading_string(request.target, timestamp), signature):
        raise Unauthorized("bad_signature", "The signature is not that of the account's key over this request.")
    return True
