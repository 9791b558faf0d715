"""Every invariant of the books, recomputed from the raw entries. Reads alone; a million entries take seconds."""

import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from loopd.database.rows import RowSource
from loopd.ledger import tables
from loopd.ledger.accounts import Role
from loopd.ledger.clearing.messages import Name
from loopd.ledger.clearing.postings import link_of
from loopd.ledger.dates import day_text
from loopd.ledger.orders import own_id, read_order
from loopd.ledger.terms import TermsHistory
from loopd.protocol.documents import check_document
from loopd.protocol.errors import Refusal

# Broken places told of one invariant; the first show what happened.
_SHOWN: Final = 5


@dataclass(frozen=True, slots=True)
class Finding:
    """One invariant: whether it holds, and where it does not."""

    invariant: str
    broken: Sequence[str]

    @property
    def holds(self) -> bool:
        return not self.broken


# Each query gives a row for every place that is wrong; its first column names the place.
_QUERIES: Final[Sequence[tuple[str, str]]] = (
    (
        "no transfer is missing, and no entry is without one",
        # Numbers are given without a gap, so that one beyond the last is of none.
        "SELECT account FROM ledger_entry WHERE transfer > (SELECT coalesce(max(number), 0) FROM ledger_transfer) "
        "UNION ALL SELECT 'of numbers 1 to ' || last FROM (SELECT count(*) AS found, max(number) AS last "
        "FROM ledger_transfer) WHERE found <> last",
    ),
    (
        "nothing is dated later than the books are",
        "SELECT id FROM ledger_transfer WHERE at_ms > (SELECT at_ms FROM ledger_time)",
    ),
    (
        "debits equal credits in every transfer",
        "SELECT transfer FROM ledger_entry GROUP BY transfer HAVING sum(amount_minor) <> 0",
    ),
    (
        "both accounts of a transfer have one currency",
        "SELECT t.id FROM ledger_transfer t JOIN ledger_account p ON p.number = t.payer "
        "JOIN ledger_account q ON q.number = t.payee WHERE p.currency <> q.currency",
    ),
    (
        "an account is for what its id says, and the reserve alone is in the backing",
        # The issuance has an account in each of the two currencies.
        "SELECT id FROM ledger_account WHERE role <> CASE WHEN id NOT GLOB 'node:*' THEN 'holder' "
        "WHEN id GLOB 'node:issuance@*' THEN 'issuance' WHEN id GLOB 'node:reserve@*' THEN 'reserve' "
        "WHEN id GLOB 'node:clearing.*@*' THEN 'clearing' ELSE 'fund' END "
        "OR (role <> 'issuance' AND (currency GLOB 'LC-*') = (role = 'reserve'))",
    ),
    (
        "what the ledger keeps for itself moves by its own rules alone, and what ages goes to the community",
        "SELECT t.id FROM ledger_transfer t JOIN ledger_account p ON p.number = t.payer "
        "JOIN ledger_account q ON q.number = t.payee WHERE NOT CASE t.kind "
        "WHEN 'payment' THEN p.role IN ('holder', 'fund') AND q.role IN ('holder', 'fund') "
        "WHEN 'issuance' THEN p.role = 'issuance' AND q.role IN ('holder', 'fund') "
        "WHEN 'redemption' THEN p.role IN ('holder', 'fund') AND q.role = 'issuance' "
        "WHEN 'backing' THEN 'reserve' IN (p.role, q.role) AND 'issuance' IN (p.role, q.role) "
        "WHEN 'bonus' THEN p.id GLOB 'node:bonus@*' AND q.role = 'holder' "
        # What crosses goes over clearing; what discharges it moves the issuance and the reserve.
        "WHEN 'settlement' THEN p.role || ' ' || q.role IN ('holder holder', 'holder fund', 'holder clearing', "
        "'clearing holder', 'clearing fund', 'clearing issuance', 'issuance clearing', 'issuance reserve', "
        "'reserve issuance') "
        "ELSE p.role = 'holder' AND q.id GLOB 'node:community-fund@*' END",
    ),
    (
        "what was posted moved its amount, and nothing else moved",
        # The plus keeps SQLite from grouping by account first: in their own order transfers are read one after another.
        "SELECT coalesce(t.id, e.transfer) FROM (SELECT transfer, account, sum(amount_minor) AS minor "
        "FROM ledger_entry GROUP BY +transfer, account) e LEFT JOIN ledger_transfer t ON t.number = e.transfer "
        "WHERE (t.phase IN ('posted', 'post') AND e.minor = CASE e.account WHEN t.payer THEN -t.amount_minor "
        "WHEN t.payee THEN t.amount_minor END) IS NOT true "
        "UNION ALL SELECT id FROM ledger_transfer WHERE phase IN ('posted', 'post') "
        "AND NOT (EXISTS (SELECT 1 FROM ledger_entry WHERE account = payer AND transfer = number) "
        "AND EXISTS (SELECT 1 FROM ledger_entry WHERE account = payee AND transfer = number))",
    ),
    (
        "an entry is dated as its transfer",
        "SELECT t.id FROM (SELECT transfer, min(at_ms) AS first_ms, max(at_ms) AS last_ms FROM ledger_entry "
        "GROUP BY transfer) e JOIN ledger_transfer t ON t.number = e.transfer "
        "WHERE e.first_ms <> t.at_ms OR e.last_ms <> t.at_ms",
    ),
    (
        "balances are the sums of their entries",
        "SELECT a.id FROM ledger_account a LEFT JOIN "
        "(SELECT account, sum(amount_minor) AS minor FROM ledger_entry GROUP BY account) e ON e.account = a.number "
        "WHERE a.balance_minor <> coalesce(e.minor, 0)",
    ),
    (
        "lots are the sums of their entries",
        "SELECT account FROM (SELECT account, issue_day, amount_minor FROM ledger_lot UNION ALL "
        "SELECT account, issue_day, -amount_minor FROM ledger_entry WHERE issue_day >= 0) "
        "GROUP BY account, issue_day HAVING sum(amount_minor) <> 0",
    ),
    (
        "the lots of an account are its balance, and only holders have lots",
        "SELECT a.id FROM ledger_account a LEFT JOIN "
        "(SELECT account, sum(amount_minor) AS minor FROM ledger_lot GROUP BY account) l ON l.account = a.number "
        "WHERE CASE a.role WHEN 'holder' THEN a.balance_minor <> coalesce(l.minor, 0) ELSE l.minor IS NOT NULL END",
    ),
    (
        "entries have an issue day where the account has lots, and only there",
        "SELECT a.id FROM ledger_entry e JOIN ledger_account a ON a.number = e.account "
        "WHERE (e.issue_day >= 0) <> (a.role = 'holder')",
    ),
    (
        "who is paid by a holder gets coins of the same days",
        "SELECT t.id FROM ledger_transfer t JOIN ledger_account p ON p.number = t.payer AND p.role = 'holder' "
        "JOIN ledger_account q ON q.number = t.payee AND q.role = 'holder' "
        "JOIN ledger_entry e ON e.account IN (t.payer, t.payee) AND e.transfer = t.number "
        "GROUP BY t.number, e.issue_day HAVING sum(e.amount_minor) <> 0",
    ),
    (
        "what the city pays out is dated that day",
        # Read by the accounts that pay out: a city has far more payments between holders.
        "SELECT t.id FROM ledger_account p JOIN ledger_entry o ON o.account = p.number AND o.amount_minor < 0 "
        "JOIN ledger_transfer t ON t.number = o.transfer AND t.payer = p.number "
        "JOIN ledger_entry e ON e.account = t.payee AND e.transfer = t.number "
        "WHERE p.role IN ('issuance', 'fund') AND e.issue_day NOT IN (-1, e.at_ms / 86400000)",
    ),
    (
        "what is held is what is pending",
        "SELECT a.id FROM ledger_account a LEFT JOIN (SELECT h.payer, sum(t.amount_minor) AS minor FROM ledger_hold h "
        "JOIN ledger_transfer t ON t.number = h.transfer WHERE h.state = 'pending' GROUP BY h.payer) p "
        "ON p.payer = a.number WHERE a.held_minor <> coalesce(p.minor, 0)",
    ),
    (
        "what is held of a lot is what pending transfers hold of it",
        "SELECT account FROM (SELECT account, issue_day, held_minor AS minor FROM ledger_lot UNION ALL "
        "SELECT h.payer, l.issue_day, -l.amount_minor FROM ledger_hold_lot l JOIN ledger_hold h ON h.transfer = l.hold "
        "WHERE h.state = 'pending' AND l.issue_day >= 0) GROUP BY account, issue_day HAVING sum(minor) <> 0",
    ),
    (
        "what is held of lots is the amount that its payer promised",
        "SELECT t.id FROM ledger_hold h JOIN ledger_transfer t ON t.number = h.transfer "
        "LEFT JOIN (SELECT hold, sum(amount_minor) AS minor FROM ledger_hold_lot GROUP BY hold) l "
        "ON l.hold = h.transfer WHERE h.payer <> t.payer OR coalesce(l.minor, 0) <> t.amount_minor",
    ),
    (
        "what was posted of a hold are the coins that it held",
        "SELECT t.id FROM ledger_transfer t JOIN ledger_hold_lot l ON l.hold = t.pending "
        "LEFT JOIN ledger_entry e ON e.account = t.payer AND e.transfer = t.number AND e.issue_day = l.issue_day "
        "WHERE t.phase = 'post' AND e.amount_minor IS NOT -l.amount_minor",
    ),
    (
        "a pending transfer ended as its end says, once, and what expired did so at its time",
        "SELECT t.id FROM ledger_transfer t LEFT JOIN ledger_hold h ON h.transfer = t.number "
        "LEFT JOIN ledger_transfer e ON e.pending = t.number WHERE (t.phase = 'pending') <> (h.transfer IS NOT NULL) "
        "OR (t.phase IN ('post', 'void', 'expire')) <> (t.pending IS NOT NULL) "
        "OR (t.phase = 'pending' AND h.state <> coalesce(CASE e.phase WHEN 'post' THEN 'posted' "
        "WHEN 'void' THEN 'voided' WHEN 'expire' THEN 'expired' END, 'pending')) "
        "OR (e.number IS NOT NULL AND (e.payer <> t.payer OR e.payee <> t.payee OR e.amount_minor <> t.amount_minor "
        "OR e.kind <> t.kind OR e.link IS NOT t.link OR e.at_ms < t.at_ms)) "
        "OR (e.phase = 'expire' AND e.at_ms IS NOT h.expires_at_ms)",
    ),
    (
        "nothing is spent that is not there",
        "SELECT id FROM ledger_account WHERE balance_minor < held_minor AND role NOT IN ('issuance', 'clearing')",
    ),
    (
        "closing balances are the sums of the days up to them",
        "SELECT account FROM (SELECT account, max(closing_minor) AS closing_minor, "
        "sum(sum(moved_minor)) OVER (PARTITION BY account ORDER BY day) AS minor FROM "
        "(SELECT account, day, balance_minor AS closing_minor, 0 AS moved_minor FROM ledger_closing UNION ALL "
        "SELECT account, at_ms / 86400000, NULL, amount_minor FROM ledger_entry) GROUP BY account, day) "
        "WHERE closing_minor IS NOT minor",
    ),
    (
        "what is linked stood or fell together",
        "SELECT link FROM ledger_transfer LEFT JOIN ledger_hold h ON h.transfer = number WHERE link IS NOT NULL "
        "AND phase = 'pending' GROUP BY link HAVING sum(h.state = 'posted') NOT IN (0, count(*)) "
        "OR sum(h.state = 'voided') NOT IN (0, count(*))",
    ),
    (
        "a settlement's lines are its transfers",
        "SELECT s.transaction_id FROM ledger_settlement s LEFT JOIN ledger_transfer t "
        "ON t.link = s.link AND t.phase = 'pending' AND t.kind = 'settlement' LEFT JOIN ledger_hold h "
        "ON h.transfer = t.number GROUP BY s.seller_node, s.transaction_id "
        "HAVING coalesce(sum(t.amount_minor), 0) <> s.total_minor "
        "OR (SELECT sum(value) FROM json_each(s.lines)) <> s.total_minor OR sum(h.state <> CASE s.state "
        "WHEN 'posted' THEN 'posted' WHEN 'voided' THEN 'voided' ELSE 'pending' END) > 0 "
        # Those between cities have lines over clearing, and are looked at below.
        "UNION ALL SELECT min(t.id) FROM ledger_transfer t JOIN ledger_account p ON p.number = t.payer "
        "JOIN ledger_account q ON q.number = t.payee WHERE t.kind = 'settlement' AND t.phase = 'pending' "
        "AND p.role = 'holder' GROUP BY t.link HAVING sum(q.role = 'clearing') = 0 "
        "AND NOT EXISTS (SELECT 1 FROM ledger_settlement s WHERE s.link = t.link)",
    ),
    (
        "a clearing account is its posted settlements less what was discharged",
        "SELECT a.id FROM ledger_account a LEFT JOIN (SELECT peer, sum(minor) AS minor FROM ("
        "SELECT CASE side WHEN 'payer' THEN payee_node ELSE payer_node END AS peer, "
        "CASE side WHEN 'payer' THEN payer_minor ELSE -payee_minor END AS minor "
        "FROM clearing_settlement WHERE state = 'posted' "
        "UNION ALL SELECT peer, -falls_minor FROM netting_discharge WHERE state = 'confirmed') GROUP BY peer) s "
        "ON a.id GLOB 'node:clearing.' || s.peer || '@*' "
        "WHERE a.role = 'clearing' AND a.balance_minor <> coalesce(s.minor, 0)",
    ),
    (
        "the claims of a run are its payments",
        "SELECT r.peer || ' ' || r.run FROM netting_run r WHERE r.state = 'agreed' AND "
        "(SELECT coalesce(sum(falls_minor), 0) FROM netting_claim WHERE run = r.number) <> "
        "(SELECT coalesce(sum(CASE side WHEN 'payer' THEN payer_minor ELSE -payee_minor END), 0) "
        "FROM clearing_settlement WHERE netting_run = r.number)",
    ),
    (
        "a payment is in a run that there is, and a claim in one that both signed",
        "SELECT s.id FROM clearing_settlement s LEFT JOIN netting_run r ON r.number = s.netting_run "
        "WHERE s.netting_run IS NOT NULL AND coalesce(r.state, '') NOT IN ('proposed', 'agreed') "
        "UNION ALL SELECT c.run FROM netting_claim c LEFT JOIN netting_run r ON r.number = c.run "
        "LEFT JOIN netting_discharge d ON d.number = c.discharge WHERE r.state IS NOT 'agreed' "
        "OR (c.discharge IS NOT NULL AND d.number IS NULL)",
    ),
    (
        "a discharge pays its claims",
        "SELECT d.id FROM netting_discharge d WHERE d.state <> 'denied' AND (d.falls_minor <> "
        "(SELECT coalesce(sum(falls_minor), 0) FROM netting_claim WHERE discharge = d.number) "
        "OR d.backing_minor <> (SELECT coalesce(sum(CASE WHEN (debtor = d.peer) = (d.side = 'creditor') "
        "THEN backing_minor ELSE -backing_minor END), 0) FROM netting_claim WHERE discharge = d.number))",
    ),
    (
        "a settlement's bonus is one transfer to its payer out of the bonus fund",
        "SELECT s.transaction_id FROM ledger_settlement s LEFT JOIN ledger_transfer t ON t.link = s.link "
        "AND t.kind = 'bonus' LEFT JOIN ledger_account p ON p.number = t.payer "
        "LEFT JOIN ledger_account q ON q.number = t.payee GROUP BY s.seller_node, s.transaction_id "
        "HAVING coalesce(sum(t.amount_minor), 0) <> s.bonus_minor OR count(t.number) > 1 "
        "OR max(p.id) NOT LIKE 'node:bonus@%' OR max(q.id) <> s.payer",
    ),
)

# Orders that are not by their letters what was written down, so that they are read: an amount may be `50.0` or `5e1`,
# and a document in another form of JSON-LD. Most are, and SQLite sees that in a microsecond.
_ORDERS: Final = (
    "SELECT t.number, t.id, t.amount_minor, p.id AS payer, q.id AS payee, p.currency, t.document "
    "FROM ledger_transfer t JOIN ledger_account p ON p.number = t.payer JOIN ledger_account q ON q.number = t.payee "
    "WHERE t.number > ? AND t.kind IN ('payment', 'redemption') AND t.phase IN ('posted', 'pending') "
    "AND CASE WHEN json_valid(CAST(t.document AS TEXT)) THEN CAST(t.document AS TEXT) ->> '$.id' = t.id "
    "AND CAST(t.document AS TEXT) ->> '$.from' = p.id AND CAST(t.document AS TEXT) ->> '$.to' = q.id "
    "AND CAST(t.document AS TEXT) ->> '$.currency' = p.currency AND CAST(t.document AS TEXT) -> '$.amount' IN "
    "(printf('%d.%02d', t.amount_minor / 100, t.amount_minor % 100), "
    "CASE t.amount_minor % 100 WHEN 0 THEN printf('%d', t.amount_minor / 100) END) END IS NOT true "
    "ORDER BY t.number LIMIT ?"
)
# Of these so many are read at a time.
_PAGE: Final = 1_000


def check(source: RowSource, progress: Callable[[str], None] = lambda _: None) -> list[Finding]:
    """All invariants, each with the first places where it is broken. `progress` hears of each as it is begun."""
    found = []
    for invariant, query in _QUERIES:
        progress(invariant)
        rows = source.all(f"{query} LIMIT {_SHOWN}")
        found.append(Finding(invariant, [str(row[0]) for row in rows]))
    found += [
        _as_ordered(source),
        _ageing(source),
        _inside_the_city(source),
        _between_cities(source),
        _conservation(source),
    ]
    return found


@dataclass(frozen=True, slots=True)
class Conservation:
    """Where the money of one currency came from and is, all in hundredths."""

    currency: str
    issued_minor: int
    received_minor: int
    holdings_minor: int
    redeemed_minor: int
    sent_minor: int

    @property
    def holds(self) -> bool:
        """What came in is still there or went out."""
        came = self.issued_minor + self.received_minor
        return came == self.holdings_minor + self.redeemed_minor + self.sent_minor


def conservation(source: RowSource) -> list[Conservation]:
    """Issued + received = holdings + redeemed + sent, for each currency, from the entries."""
    rows = source.all(
        "SELECT a.currency, "
        "coalesce(sum(CASE a.role WHEN :issuance THEN e.debits END), 0) AS issued, "
        "coalesce(sum(CASE a.role WHEN :clearing THEN e.debits END), 0) AS received, "
        "coalesce(sum(CASE WHEN a.role NOT IN (:issuance, :clearing) THEN e.credits - e.debits END), 0) AS holdings, "
        "coalesce(sum(CASE a.role WHEN :issuance THEN e.credits END), 0) AS redeemed, "
        "coalesce(sum(CASE a.role WHEN :clearing THEN e.credits END), 0) AS sent "
        # Accounts without lots have one entry for each transfer.
        "FROM (SELECT account, -sum(min(amount_minor, 0)) AS debits, sum(max(amount_minor, 0)) AS credits "
        "FROM ledger_entry GROUP BY account) e JOIN ledger_account a ON a.number = e.account "
        "GROUP BY a.currency ORDER BY a.currency",
        {"issuance": Role.ISSUANCE, "clearing": Role.CLEARING},
    )
    return [Conservation(*row) for row in rows]


def _conservation(source: RowSource) -> Finding:
    broken = [each.currency for each in conservation(source) if not each.holds]
    return Finding("issued + received = holdings + redeemed + sent", broken)


def _as_ordered(source: RowSource) -> Finding:
    """What was written down is what its payer ordered: the order is kept as it came, and a signature covers it."""
    broken: list[str] = []
    after = 0
    while rows := source.all(_ORDERS, (after, _PAGE)):
        broken += [row["id"] for row in rows if not _is_as_ordered(row)]
        after = rows[-1]["number"]
    return Finding("what was paid is what its payer ordered", broken[:_SHOWN])


def _is_as_ordered(row: sqlite3.Row) -> bool:
    if row["document"] is None:
        return False
    try:
        order = read_order(check_document(row["document"], "LoopCoinTransfer"))
    except Refusal:
        return False
    written = row["id"], row["payer"], row["payee"], row["amount_minor"], row["currency"]
    return (order.id, order.payer, order.payee, order.amount_minor, order.currency) == written


def _ageing(source: RowSource) -> Finding:
    """No lot waits for a later boundary than its next one: it would miss what is due."""
    broken: list[str] = []
    versions = tables.terms_versions(source)
    lots = source.all(
        "SELECT account, issue_day, max(due_ms) AS due_ms FROM ledger_lot WHERE amount_minor > held_minor "
        "GROUP BY issue_day ORDER BY issue_day"
    )
    if versions:
        history, now_ms = TermsHistory(versions), tables.ledger_time(source)
        late = [row for row in lots if row["due_ms"] > history.next_boundary(row["issue_day"], now_ms)]
        broken = [f"{row['account']} from {day_text(row['issue_day'])}" for row in late]
    return Finding("no lot misses a boundary", broken[:_SHOWN])


def _inside_the_city(source: RowSource) -> Finding:
    """A settlement inside the city is of the transaction whose name its lines were given."""
    rows = source.all("SELECT seller_node, transaction_id, link FROM ledger_settlement")
    broken = [
        row["transaction_id"]
        for row in rows
        if row["link"] != own_id("settlement", row["seller_node"], row["transaction_id"])
    ]
    return Finding("a settlement is of its own transaction", broken[:_SHOWN])


def _between_cities(source: RowSource) -> Finding:
    """The lines of a settlement with another node stand as it does, and are what crosses; no lines are of none."""
    lines = {
        row["link"]: row
        for row in source.all(
            "SELECT t.link, min(h.state) AS state, max(h.state) AS other_state, "
            "sum(CASE WHEN p.role = 'clearing' OR q.role = 'clearing' THEN t.amount_minor ELSE 0 END) AS minor "
            "FROM ledger_transfer t JOIN ledger_hold h ON h.transfer = t.number "
            "JOIN ledger_account p ON p.number = t.payer JOIN ledger_account q ON q.number = t.payee "
            "WHERE t.kind = 'settlement' AND t.phase = 'pending' GROUP BY t.link "
            "HAVING sum(p.role = 'clearing' OR q.role = 'clearing') > 0"
        )
    }
    broken = []
    for row in source.all(
        "SELECT payer_node, payee_node, id, side, state, payer_minor, payee_minor FROM clearing_settlement"
    ):
        found = lines.pop(link_of(Name(row["payer_node"], row["payee_node"], row["id"])), None)
        crossing_minor = row[f"{row['side']}_minor"]
        stands = "pending" if row["state"] in ("held", "prepared") else row["state"]
        if found is None:
            # Nothing was held or reserved, or nothing crosses.
            wrong = crossing_minor != 0
        else:
            wrong = (found["state"], found["other_state"], found["minor"]) != (stands, stands, crossing_minor)
        if wrong:
            broken.append(row["id"])
    return Finding("a settlement between cities is as its lines", [*broken, *lines][:_SHOWN])


@dataclass(frozen=True, slots=True)
class TrialLine:
    """An account with what was debited and credited on it, from the entries."""

    account: str
    currency: str
    debits_minor: int
    credits_minor: int
    balance_minor: int
    held_minor: int


def trial_balance(source: RowSource) -> list[TrialLine]:
    """Every account with its turnover, by currency and id."""
    rows = source.all(
        "SELECT a.id, a.currency, "
        "coalesce(sum(CASE WHEN e.amount_minor < 0 THEN -e.amount_minor END), 0), "
        "coalesce(sum(CASE WHEN e.amount_minor > 0 THEN e.amount_minor END), 0), a.balance_minor, a.held_minor "
        "FROM ledger_account a LEFT JOIN ledger_entry e ON e.account = a.number "
        "GROUP BY a.number ORDER BY a.currency, a.id"
    )
    return [TrialLine(*row) for row in rows]
