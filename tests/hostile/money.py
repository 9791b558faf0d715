"""Hostile orders, reads and settlements about the city's money, from a holder, from peers and from nobody."""

import base64
import json
import uuid
from hashlib import sha256
from typing import Any

import rfc8785
from nacl.signing import SigningKey

from tests.hostile.stage import LD_JSON, MARIA, OWN, REFUSED, Row, Stage, signed
from tests.hostile.wire import request
from tests.peer import ABSENT, document, utc

LOOPCOIN = "/api/v1/loopcoin"
TRANSFERS = f"{LOOPCOIN}/transfers"
SETTLEMENT = "/api/v1/federate/settlement"
ANNA, FUND, ISSUANCE = f"user:anna@{OWN}", f"node:community-fund@{OWN}", f"node:issuance@{OWN}"
UNKNOWN = "00000000-0000-4000-8000-000000000009"


def _own_id(*parts: str) -> str:
    """A UUID of version 8 as the protocol notes tell: what a ledger itself gives."""
    digest = sha256("\n".join(("loopd-ledger-v1", *parts)).encode()).digest()
    number = int.from_bytes(digest[:16], "big") & ~(0xF << 76) & ~(0b11 << 62)
    return str(uuid.UUID(int=number | 8 << 76 | 0b10 << 62))


def _order(amount: str = "1", **changes: Any) -> bytes:
    """An order of Maria's that would be carried out, but for the changes. The amount is JSON text."""
    fields: dict[str, Any] = {
        "id": str(uuid.uuid4()),
        "from": MARIA,
        "to": f"business:brewery@{OWN}",
        "amount": "AMOUNT",
        "currency": "LC-MUC",
        "timestamp": utc(),
        "x": REFUSED,
        **changes,
    }
    return document("LoopCoinTransfer", **fields).replace(b'"AMOUNT"', amount.encode())


def _pays(stage: Stage, body: bytes, who: str | None = "account", path: str = TRANSFERS) -> bytes:
    bearer = {} if who is None else {"Authorization": f"Bearer {stage.tokens[who]}"}
    return request("POST", path, {**LD_JSON, **bearer}, body)


def amount(text: str, reason: str, name: str | None = None) -> Row:
    shown = text if len(text) < 30 else f"{text[:10]}... of {len(text)} digits"
    return Row(f"an order of {name or shown}", 400, reason, lambda stage: _pays(stage, _order(text)))


def ordered(name: str, reason: str, code: int, /, who: str | None = "account", **changes: Any) -> Row:
    return Row(f"an order {name}", code, reason, lambda stage: _pays(stage, _order(**changes), who))


def _forged(**changes: Any) -> bytes:
    """An order that a key signed which is nobody's here, changed after that."""
    value = json.loads(_order())
    key = SigningKey(bytes(32))
    signature = base64.urlsafe_b64encode(key.sign(rfc8785.dumps(value)).signature).rstrip(b"=").decode()
    return json.dumps({**value, "signature": signature, **changes}).encode()


AMOUNTS = [
    amount("1.001", "bad_amount"),
    amount("0.010000000000000000001", "bad_amount"),
    amount("1e-3", "schema"),
    amount("-1", "schema"),
    amount("-0.0", "schema"),
    amount("0", "schema"),
    amount("NaN", "not_finite"),
    amount("-Infinity", "not_finite"),
    amount("1e30", "bad_amount"),
    amount("1e999999999", "number_out_of_range"),
    amount("1" + "0" * 30, "bad_amount"),
    amount("1" * 5_000, "number_out_of_range"),
    amount("0.1e", "not_json"),
    amount("0x10", "not_json"),
    amount("01", "not_json"),
    amount('"1"', "schema", "a text"),
    amount("true", "schema"),
    amount("null", "schema"),
    amount("[1]", "schema"),
    amount('{"value": 1}', "schema", "an object"),
]

ORDERS = [
    ordered("from another's account", "not_authorised", 403, **{"from": ANNA}),
    ordered("from nobody's account", "not_authorised", 403, **{"from": f"user:nobody@{OWN}"}),
    ordered("from the city's account", "not_authorised", 403, **{"from": FUND}),
    ordered("from the issuance", "not_authorised", 403, **{"from": ISSUANCE}),
    ordered("from nobody", "not_authorised", 403, who=None),
    ordered("with a token that pays nothing", "not_authorised", 403, who="offer:write"),
    ordered("from another city's account", "not_authorised", 403, **{"from": "user:max@vienna.loop"}),
    ordered("to nobody", "unknown_account", 404, to=f"user:nobody@{OWN}"),
    ordered("to an account of odd letters", "unknown_account", 404, to=f"user:' OR 1=1--\u202e\t@{OWN}"),
    ordered("to an account without end", "unknown_account", 404, to=f"user:{'a' * 9_000}@{OWN}"),
    ordered("to what is no account", "schema", 400, to=OWN),
    ordered("to another city", "other_node", 409, to="user:max@vienna.loop"),
    ordered("to the issuance", "reserved_account", 403, to=ISSUANCE),
    ordered("to the reserve", "reserved_account", 403, to=f"node:reserve@{OWN}"),
    ordered("to a peer's clearing account", "reserved_account", 403, to=f"node:clearing.vienna.loop@{OWN}"),
    ordered("to itself", "same_account", 400, to=MARIA),
    ordered("in another currency", "wrong_currency", 400, currency="LC-VIE"),
    ordered("in the backing", "schema", 400, currency="EUR"),
    ordered("with an id that the ledger gives", "reserved_id", 400, id=_own_id("decay")),
    ordered("without an id", "schema", 400, id=ABSENT),
    ordered("with an id of SQL", "schema", 400, id="' OR 1=1--"),
    ordered("from the drawer", "bad_time", 400, timestamp=utc(-8 * 86_400)),
    ordered("from the future", "bad_time", 400, timestamp=utc(86_400)),
    ordered("held until yesterday", "bad_time", 400, hold_until=utc(-86_400)),
    ordered("held for good", "bad_time", 400, hold_until="9999-12-31T23:59:59Z"),
    ordered("held until a number", "bad_time", 400, hold_until=1),
    ordered("with a number that has no form", "not_canonical", 400, y=2**60),
    ordered("with a mailbox", "personal_data", 400, memo="maria@example.org"),
    Row(
        "an order that somebody else signed",
        401,
        "bad_signature",
        lambda stage: _pays(stage, _forged(), None),
    ),
    Row(
        "an order that was changed after it was signed",
        401,
        "bad_signature",
        lambda stage: _pays(stage, _forged(amount=2), None),
    ),
    Row("an order without end", 413, "payload_too_large", lambda stage: _pays(stage, _order(y="z" * 20_000))),
    Row(
        "orders of which the second is not one's own",
        403,
        "not_authorised",
        lambda stage: _pays(
            stage,
            b'{"transfers": [%b, %b]}' % (_order(), _order(**{"from": ANNA})),
            path=f"{TRANSFERS}/linked",
        ),
    ),
    Row("a post of nothing", 404, "unknown_transfer", lambda s: _pays(s, b"", path=f"{TRANSFERS}/{UNKNOWN}/post")),
    Row("a void of SQL", 404, "unknown_transfer", lambda s: _pays(s, b"", path=f"{TRANSFERS}/1%27--/void")),
    Row(
        "coins for oneself",
        403,
        "insufficient_scope",
        lambda s: _pays(s, document("Issue", id=UNKNOWN, to=MARIA, amount=1), path=f"{LOOPCOIN}/issuance"),
    ),
    Row(
        "a dispute resolved by its payer",
        403,
        "insufficient_scope",
        lambda s: _pays(s, b'{"decision": "void"}', path=f"{LOOPCOIN}/settlement/TXN-2026-01-01-001/resolve"),
    ),
]

READS = [
    Row("another's account", 403, "not_yours", request("GET", f"{LOOPCOIN}/accounts/{ANNA}")),
    Row("nobody's account", 403, "not_yours", request("GET", f"{LOOPCOIN}/accounts/user:nobody@{OWN}")),
    Row("an account of odd letters", 403, "not_yours", request("GET", f"{LOOPCOIN}/accounts/%27%20OR%201=1--")),
    Row(
        "an account that the city has not", 404, "unknown_account", request("GET", f"{LOOPCOIN}/accounts/node:x@{OWN}")
    ),
    Row(
        "a statement before nothing",
        400,
        "bad_cursor",
        request("GET", f"{LOOPCOIN}/accounts/{FUND}/statement?cursor=0"),
    ),
    Row(
        "a statement from a number without end",
        400,
        "bad_cursor",
        request("GET", f"{LOOPCOIN}/accounts/{FUND}/statement?cursor={'9' * 40}"),
    ),
    Row("a page of a thousand", 400, "bad_limit", request("GET", f"{LOOPCOIN}/accounts/{FUND}/statement?limit=1000")),
    Row("a balance of no time", 400, "bad_time", request("GET", f"{LOOPCOIN}/accounts/{FUND}?at=tomorrow")),
    Row(
        "a balance of before the years",
        400,
        "bad_time",
        request("GET", f"{LOOPCOIN}/accounts/{FUND}?at=0000-01-01T00:00:00Z"),
    ),
    Row(
        "a balance of the year 1 beyond its zone",
        400,
        "bad_time",
        request("GET", f"{LOOPCOIN}/accounts/{FUND}?at=0001-01-01T00:00:00%2B23:59"),
    ),
    Row(
        "a balance of the last year",
        400,
        "bad_time",
        request("GET", f"{LOOPCOIN}/accounts/{FUND}?at=9999-12-31T23:59:59Z"),
    ),
    Row("a transfer that is none", 404, "unknown_transfer", request("GET", f"{TRANSFERS}/{UNKNOWN}")),
    Row("a transfer of SQL", 404, "unknown_transfer", request("GET", f"{TRANSFERS}/%27;--")),
    Row("a settlement of nothing", 404, "unknown_settlement", request("GET", f"{LOOPCOIN}/settlement/TXN-1")),
    Row("what is between cities, by nobody", 401, "missing_token", request("GET", f"{LOOPCOIN}/clearing/vienna.loop")),
]


def _settlement_id(payee: str, transaction: str) -> str:
    return _own_id("settlement", payee, transaction)


def _told(entity: str, **changes: Any) -> bytes:
    """What Vienna, which sold something to Munich, may tell; but for the changes."""
    fields: dict[str, Any] = {
        "payer": OWN,
        "payee": "vienna.loop",
        "id": _settlement_id("vienna.loop", "TXN-2026-01-01-001"),
        **changes,
    }
    return document(f"Settlement{entity}", **fields)


def _asked(lines: dict[str, Any] | None = None, **changes: Any) -> bytes:
    names = ("seller_receives", "seller_community_fund", "buyer_community_fund", "transport_cost", "residual")
    fields: dict[str, Any] = {
        "transaction": "TXN-2026-01-01-001",
        "material": "MAT-AT-VIE-2026-FOOD-B847F3",
        "buyer_account": MARIA,
        "seller_account": "business:bakery@vienna.loop",
        "currency": "LC-VIE",
        "backed_by": "EUR",
        "exchange_rate": 1,
        "lines": {**dict.fromkeys(names, 1), **(lines or {})},
        **changes,
    }
    return _told("Request", **fields)


def settled(name: str, reason: str, code: int, body: bytes, peer: str = "vienna") -> Row:
    return Row(f"a settlement {name}", code, reason, lambda stage: signed(getattr(stage, peer), SETTLEMENT, body))


def asked(name: str, reason: str, /, lines: dict[str, Any] | None = None, **changes: Any) -> Row:
    return settled(name, reason, 400, _asked(lines, **changes))


def _prepared(**changes: Any) -> bytes:
    line = {"line": "seller_receives", "payer_amount": 1, "payee_amount": 1}
    fields: dict[str, Any] = {
        "payer": "vienna.loop",
        "payee": OWN,
        "id": _settlement_id(OWN, "TXN-2026-01-01-001"),
        "currency": "LC-VIE",
        "exchange_rate": 1,
        "lines": [line],
        "issue_days": [{"day": "2026-01-01", "amount": 1}],
        **changes,
    }
    return document("SettlementPrepare", **fields)


SETTLEMENTS = [
    asked("of three decimals", "bad_amount", {"residual": 0.001}),
    asked("of less than nothing", "schema", {"residual": -1}),
    asked("of a text", "schema", {"residual": "1"}),
    asked("of too much", "schema", {"residual": 1e30}),
    settled("of one line", "schema", 400, _told("Request", **{**json.loads(_asked()), "lines": {"residual": 1}})),
    asked("at a rate below nothing", "schema", exchange_rate=-1),
    asked("at a rate of a text", "schema", exchange_rate="1"),
    asked("backed by gold", "schema", backed_by="XAU"),
    asked("of the city's own account", "schema", buyer_account=FUND),
    asked("of no account", "schema", buyer_account="maria"),
    asked("for no goods", "schema", material=ABSENT),
    asked("of a material without end", "schema", material=f"MAT-AT-VIE-2026-FOOD-{'A' * 300}"),
    asked("of no transaction", "schema", transaction="1"),
    asked("under another's name", "bad_id", id=_settlement_id("berlin.loop", "TXN-2026-01-01-001")),
    asked("under an id of SQL", "schema", id="' OR 1=1--"),
    asked("in another city's name", "origin_mismatch", payee="berlin.loop"),
    asked("for another city to pay", "not_counterpart", payer="berlin.loop"),
    asked("with one field too many", "schema", admin=True),
    settled("that nobody asked for, answered", "unknown_settlement", 409, _told("Answer", answer="prepared")),
    settled("that nobody asked for, refused", "unknown_settlement", 409, _told("Answer", answer="refused")),
    settled(
        "that nobody decided on, acknowledged",
        "unknown_settlement",
        409,
        _told("Acknowledgement", decision="post"),
    ),
    settled("answered otherwise", "schema", 400, _told("Answer", answer="maybe")),
    settled("with a reason for people", "schema", 400, _told("Answer", answer="refused", reason="Because!")),
    settled("that nobody asked for, with money held", "unknown_settlement", 409, _prepared()),
    settled(
        "prepared on a day that there is not", "schema", 400, _prepared(issue_days=[{"day": "2026-02-30", "amount": 1}])
    ),
    settled(
        "prepared on a thousand days and one",
        "schema",
        400,
        _prepared(issue_days=[{"day": "2026-01-01", "amount": 1}] * 1001),
    ),
    settled(
        "prepared in a line of the payer's own",
        "schema",
        400,
        _prepared(lines=[{"line": "buyer_community_fund", "payer_amount": 1, "payee_amount": 1}]),
    ),
    settled(
        "that nobody asked for, decided",
        "unknown_settlement",
        409,
        document(
            "SettlementDecision",
            payer="vienna.loop",
            payee=OWN,
            id=_settlement_id(OWN, "TXN-2026-01-01-001"),
            decision="post",
        ),
    ),
    settled("from a peer without credit", "not_settling", 403, _asked(payee="berlin.loop"), "berlin"),
    settled("from a node that a peer introduced", "not_a_peer", 403, _asked(payee="graz.loop"), "introduced"),
    settled("from a node that was set aside", "suspended", 403, _asked(payee="salzburg.loop"), "suspended"),
    settled("from a stranger", "unknown_node", 401, _asked(payee="stranger.loop"), "stranger"),
    Row("a statement of settlements, without a signature", 401, "missing_header", request("GET", SETTLEMENT)),
]

ROWS = [*AMOUNTS, *ORDERS, *READS, *SETTLEMENTS]
