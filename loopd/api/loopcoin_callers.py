"""Who asks at the ledger's routes, and how an account's holder is shown: by a token, or by the account's key."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from loopd.api.requests import ANONYMOUS, Principal, Request
from loopd.crypto.keys import NodeKey, PublicKey, decode_signature
from loopd.ledger.authority import Authority
from loopd.ledger.movements import Transfer
from loopd.ledger.refusals import Fault, refused
from loopd.protocol.errors import Forbidden, Unauthorized
from loopd.protocol.limits import REQUEST_CLOCK_TOLERANCE_MS
from loopd.protocol.timestamps import parse_timestamp

ACCOUNT_TIMESTAMP: Final = "X-Account-Timestamp"
ACCOUNT_SIGNATURE: Final = "X-Account-Signature"
# What a holder's key must show before it is told anything of its account.
READ_REFUSALS: Final = {401: ("bad_signature", "clock_skew"), 403: ("not_yours",)}
_READ_VERSION: Final = "loop-account-read-v1"
# Another word, so that nothing that was signed to look at a transfer posts or voids one.
_END_VERSION: Final = "loop-account-end-v1"
_NOBODYS_KEY: Final = NodeKey.from_seed(bytes(32)).public


def authority_of(request: Request) -> Authority:
    """What the caller's token says."""
    return Authority(request.principal.account, "admin" in request.principal.scopes)


def reading_string(target: str, timestamp: str) -> bytes:
    """What the key of an account signs to read it: version, path with query, and time, joined by LF."""
    return "\n".join((_READ_VERSION, target, timestamp)).encode()


def ending_string(target: str, timestamp: str) -> bytes:
    """What a payer's key signs to post or void what is pending: version, path, and time, joined by LF."""
    return "\n".join((_END_VERSION, target, timestamp)).encode()


def check_reader(request: Request, account_id: str, public_key: str | None, now_ms: int) -> bool:
    """Whether the caller is more than the public to this account.

    Forbidden `not_yours` where the public sees nothing of it, whether it exists or not; Unauthorized `bad_signature`,
    `clock_skew` for a signature that does not hold, whether there is a key to hold it against or not.
    """
    authority = authority_of(request)
    if authority.operator or authority.account == account_id:
        return True
    if authority.sees(account_id):
        return False
    proof = _proof_of(request, now_ms)
    if proof is None:
        message = "An account is shown to its holder: by a token bound to it, or its key's signature."
        raise Forbidden("not_yours", message)
    if not proof.holds(public_key):
        raise _bad_signature()
    return True


def may_read(request: Request, transfer: Transfer | None, public_keys: Iterable[str | None], now_ms: int) -> bool:
    """Whether the caller may see a transfer; `public_keys` are those of its two accounts.

    Who may not learns nothing of it, not even whether there is one. Unauthorized as `check_reader`.
    """
    authority = authority_of(request)
    if transfer is not None and authority.sees_transfer(transfer.payer_id, transfer.payee_id):
        return True
    proof = _proof_of(request, now_ms)
    if proof is None:
        return False
    if not any(proof.holds(public_key) for public_key in public_keys):
        raise _bad_signature()
    return True


def authority_to_end(request: Request, transfer: Transfer | None, public_key: str | None, now_ms: int) -> Authority:
    """What the caller's token says, or that it is the payer of a transfer, whose key has signed the request.

    Unauthorized `bad_signature`, `clock_skew` for a signature that does not hold, whether there is a transfer or not.
    """
    authority = authority_of(request)
    if authority != Authority():
        return authority
    proof = _proof_of(request, now_ms, ending_string)
    if proof is None:
        return authority
    if not proof.holds(public_key) or transfer is None:
        raise _bad_signature()
    return Authority(account=transfer.payer_id)


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


@dataclass(frozen=True, slots=True)
class _Proof:
    """A signature over a request, by which an account's key shows itself."""

    signed: bytes
    signature: bytes

    def holds(self, public_key: str | None) -> bool:
        """Whether it is that of a key, PEM. Without one it takes as long to say no."""
        key = _NOBODYS_KEY if public_key is None else PublicKey.from_pem(public_key)
        return key.verify(self.signed, self.signature) and public_key is not None


def _proof_of(request: Request, now_ms: int, string: Callable[[str, str], bytes] = reading_string) -> _Proof | None:
    stated, timestamp = request.headers.get(ACCOUNT_SIGNATURE), request.headers.get(ACCOUNT_TIMESTAMP)
    if stated is None or timestamp is None:
        return None
    try:
        skew_ms = abs(now_ms - parse_timestamp(timestamp))
        signature = decode_signature(stated)
    except ValueError:
        raise Unauthorized("bad_signature", "The account's signature or its time cannot be read.") from None
    if skew_ms > REQUEST_CLOCK_TOLERANCE_MS:
        raise Unauthorized("clock_skew", "The request is too old or too new.")
    return _Proof(string(request.target, timestamp), signature)


def _bad_signature() -> Unauthorized:
    return Unauthorized("bad_signature", "The signature is not that of the account's key over this request.")
