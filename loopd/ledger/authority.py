"""Who may debit an account: its key's signature, or a token bound to it; the operator for the node's own; pure."""

from dataclasses import dataclass
from functools import lru_cache

from loopd.crypto.keys import PublicKey, decode_signature
from loopd.ledger.accounts import is_public
from loopd.ledger.orders import Order
from loopd.ledger.refusals import Fault, refused


@dataclass(frozen=True, slots=True)
class Authority:
    """What a caller has shown: the account that a token is bound to, or that it is the operator."""

    account: str | None = None
    operator: bool = False

    def sees(self, account_id: str) -> bool:
        """Whether the caller may look at an account."""
        return self.operator or is_public(account_id) or self.account == account_id

    def sees_transfer(self, payer: str, payee: str) -> bool:
        """Whether the caller may look at a transfer: either account's holder, and everybody where both are public."""
        return self.account in (payer, payee) or (self.sees(payer) and self.sees(payee))


OPERATOR = Authority(operator=True)


def check_authority(
    authority: Authority, payer: str, order: Order | None = None, public_key: str | None = None
) -> None:
    """Refusal `bad_signature` or `not_authorised` unless the caller may pay from the account.

    The operator keeps the node's own accounts, and nobody else's. A signature is checked wherever a key is registered,
    even if a token would do. Whoever has no token learns from it whether it holds, and not whether there is an account.
    """
    if is_public(payer):
        if not authority.operator:
            raise refused(Fault.NOT_AUTHORISED)
        return
    is_bound = authority.account == payer
    if order is not None and order.signature is not None and (public_key is not None or not is_bound):
        if public_key is None or not _holds(order, public_key):
            raise refused(Fault.BAD_SIGNATURE, {"pointer": "/signature"})
    elif not is_bound:
        raise refused(Fault.NOT_AUTHORISED)


def _holds(order: Order, public_key: str) -> bool:
    try:
        signature = decode_signature(order.signature or "")
    except ValueError:
        return False
    return _read_key(public_key).verify(order.signed, signature)


@lru_cache(maxsize=1024)
def _read_key(public_key: str) -> PublicKey:
    """Reading PEM costs two thirds of what a verification does, and who pays pays again."""
    return PublicKey.from_pem(public_key)
