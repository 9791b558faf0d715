"""Money: both cities keep a ledger; what a sale pays is held, then posted, and stands in both books (§5, §7.4)."""

import asyncio
from collections.abc import Mapping, Sequence
from decimal import Decimal
from itertools import chain, zip_longest
from typing import Final

from rich.text import Text

from loopd.demo.act import PATIENCE_S, Act, Facts, Play
from loopd.demo.cast import BACKED_BY, BUYER_ACCOUNT, ISSUED_LC, MUNICH, PURCHASE, SELLER_ACCOUNT, City
from loopd.demo.page import Cell, Page, amount
from loopd.protocol.limits import LIST_LIMIT_MAX

BUYER: Final = PURCHASE.city
# The seller's city first, wherever both stand beside each other; what a function here gives for both is in this order.
SIDES: Final = (MUNICH, BUYER)
_HOLDERS: Final = {MUNICH: SELLER_ACCOUNT, BUYER: BUYER_ACCOUNT}

# The five lines of §7.4: what each is in terms of the LoopCost, and who gets it.
_LINES: Final = (
    ("seller_receives", "price − export", MUNICH, SELLER_ACCOUNT),
    ("seller_community_fund", "export", MUNICH, f"node:community-fund@{MUNICH.node_id}"),
    ("buyer_community_fund", "import", BUYER, f"node:community-fund@{BUYER.node_id}"),
    ("transport_cost", "distance", MUNICH, f"node:transport@{MUNICH.node_id}"),
    ("residual", "residual", MUNICH, f"node:clearing-residual@{MUNICH.node_id}"),
)
# What an account is, in the order in which books are shown; an account in the backing stands below the rest.
_HOLDERS_PLACE, _CLEARING_PLACE = "holders", "clearing"
_PLACES: Final = (
    *(_HOLDERS_PLACE, "community-fund", "transport", "clearing-residual", "bonus"),
    *(_CLEARING_PLACE, "issuance"),
)
_BACKING_PLACES: Final = (f"reserve in {BACKED_BY}",)


async def _open(play: Play) -> Facts:
    directories = {city: str(play.nodes.of(city).directory) for city in SIDES}
    opening = {city: ("ledger", "account", "add", directories[city], _HOLDERS[city]) for city in SIDES}
    backing = str(ISSUED_LC)
    issuing = ("ledger", "issue", directories[BUYER], BUYER_ACCOUNT, backing, "--backing", backing)
    await asyncio.gather(*(play.nodes.json_command(play.nodes.of(city), *words) for city, words in opening.items()))
    await play.nodes.json_command(play.nodes.of(BUYER), *issuing)
    return {
        "commands": [play.nodes.shown(*words) for words in (*opening.values(), issuing)],
        "accounts": await asyncio.gather(*(_opened(play, city) for city in SIDES)),
    }


async def _opened(play: Play, city: City) -> Facts:
    """A city's account, and what stands behind its currency."""
    figures = await play.client.get(play.nodes.of(city), "/api/v1/loopcoin/issuance")
    standing = await between(play, city)
    return {
        "node": city.node_id,
        **await _account(play, city),
        **{name: figures[name] for name in ("supply", "reserve", "backed_by")},
        **{name: standing[name] for name in ("peer", "credit_limit")},
    }


async def _account(play: Play, city: City) -> Facts:
    """How the account of a city's business stands, as its office sees it."""
    path = f"/api/v1/loopcoin/accounts/{_HOLDERS[city]}"
    shown = await play.client.get_as_operator(play.nodes.of(city), path)
    return {name: shown[name] for name in ("id", "currency", "balance", "held", "available")}


async def between(play: Play, city: City) -> Facts:
    """What is between a city and the other one, in its own books."""
    peer = next(side for side in SIDES if side is not city)
    path = f"/api/v1/loopcoin/clearing/{peer.node_id}"
    return dict(await play.client.get_as_operator(play.nodes.of(city), path))


def _show_accounts(page: Page, facts: Facts) -> None:
    for command in facts["commands"]:
        page.command(command)
    rows = [
        (each["id"], amount(each["balance"]), each["currency"], f"{amount(each['reserve'])} {each['backed_by']}")
        for each in facts["accounts"]
    ]
    page.table(("account", ">balance", "currency", ">its city's reserve"), rows)
    for each in facts["accounts"]:
        page.say(f"{each['node']} lets {each['peer']} owe it up to {amount(each['credit_limit'])} {each['currency']}.")


async def held(play: Play) -> Facts:
    """Wait until the buyer's node holds the money of the deal, and the seller's is prepared for it."""
    sides = await _settlement(play, "prepared")
    return {"sides": sides, "accounts": await asyncio.gather(*(_account(play, city) for city in SIDES))}


async def paid(play: Play) -> Facts:
    """Wait until the deal is paid in both books; what each line of §7.4 came to. DemoFailed where the books differ."""
    sides = await _settlement(play, "posted")
    debits = await _posted(play, BUYER, BUYER_ACCOUNT)
    lines = []
    for line, meaning, city, account in _LINES:
        for transfer, got in (await _posted(play, city, account)).items():
            shown = {"line": line, "meaning": meaning, "to": account, "amount": got, "currency": city.currency_code}
            lines.append({**shown, "transfer": transfer})
    if {each["transfer"] for each in lines} != debits.keys():
        raise play.munich.failure(f"{MUNICH.node_id} and {BUYER.node_id} have different transfers for the same sale")
    total = {"from": BUYER_ACCOUNT, "amount": -sum(debits.values()), "currency": BUYER.currency_code}
    return {"sides": sides, "lines": lines, "total": total}


async def _settlement(play: Play, state: str) -> list[Facts]:
    """The payment of the deal's sale as each side has it, once it stands so at both."""

    async def look() -> list[Facts] | None:
        found = [
            {"node": city.node_id, "currency": city.currency_code, **settlement}
            for city in SIDES
            for settlement in (await between(play, city))["results"]
            if settlement.get("transaction") == play.deal["transaction"] and settlement["state"] == state
        ]
        return found if len(found) == len(SIDES) else None

    what = f"and {MUNICH.node_id} have the money {state}"
    return await play.client.until(play.nodes.of(BUYER), what, look, PATIENCE_S)


async def _posted(play: Play, city: City, account: str) -> dict[str, Decimal]:
    """What settlements moved on an account, by the id of the transfer; both books have the same ids."""
    path = f"/api/v1/loopcoin/accounts/{account}/statement"
    lines = (await play.client.get_as_operator(play.nodes.of(city), path))["results"]
    return {line["id"]: Decimal(line["amount"]) for line in lines if line["kind"] == "settlement"}


def show_held(page: Page, payment: Facts) -> None:
    """Both accounts while the money is held."""
    rows = [
        (
            each["id"],
            amount(each["balance"]),
            Text(amount(each["held"]), style="yellow" if each["held"] else ""),
            amount(each["available"]),
            each["currency"],
        )
        for each in payment["accounts"]
    ]
    page.table(("account", ">balance", ">held", ">free", "currency"), rows)
    seller, buyer = payment["sides"]
    page.say(f"{buyer['node']} holds the money, {seller['node']} is ready; nothing has moved yet.")


def show_paid(page: Page, payment: Facts) -> None:
    """The five lines of §7.4, and their sum."""
    rows: list[Sequence[Cell]] = [
        (each["meaning"], each["to"], amount(each["amount"]), each["currency"]) for each in payment["lines"]
    ]
    total = payment["total"]
    rows.append(_bold("LoopCost, paid by", total["from"], amount(total["amount"]), total["currency"]))
    page.table(("part", "account", ">amount", "currency"), rows)
    seller, buyer = payment["sides"]
    sent, received = f"{amount(buyer['payer_amount'])} {buyer['currency']}", amount(seller["payee_amount"])
    page.say("Both sides bear the export and the fund gets it once: so a residual is left.")
    page.say(f"{sent} crossed, and came in as {received} {seller['currency']}.")


async def _settle(play: Play) -> Facts:
    books, comparison, *checks = await asyncio.gather(
        read_books(play), _reconcile(play), *(_check(play, city) for city in SIDES)
    )
    return {**books, "checks": checks, "reconciliation": comparison}


async def read_books(play: Play) -> Facts:
    """Both cities' books: `books` has every account of each, and the sum of each currency.

    `owed` is what each says that it owes the other one; below zero what it is owed.
    """
    books = await asyncio.gather(*(_book(play, city) for city in SIDES))
    standings = await asyncio.gather(*(between(play, city) for city in SIDES))
    owed = {city.node_id: each["owes"] for city, each in zip(SIDES, standings, strict=True)}
    return {"books": books, "owed": owed}


async def _book(play: Play, city: City) -> Facts:
    node, accounts = play.nodes.of(city), []
    path: str | None = f"/admin/v1/ledger/accounts?limit={LIST_LIMIT_MAX}"
    while path is not None:
        page = await play.client.get_as_operator(node, path)
        accounts += [{name: each[name] for name in ("id", "currency", "balance", "held")} for each in page["results"]]
        path = page["next"]
    sums: dict[str, Decimal] = {}
    for account in accounts:
        sums[account["currency"]] = sums.get(account["currency"], Decimal(0)) + account["balance"]
    return {"node": city.node_id, "currency": city.currency_code, "accounts": accounts, "sums": sums}


def _side_by_side(books: Sequence[Facts], places: Sequence[str]) -> list[list[Cell]]:
    """A row for each pair of accounts that have one of these places in two books, where either has anything.

    What is between both cities is shown even where that is nothing.
    """
    here, there = books
    sides = (_by_place(here, there["node"]), _by_place(there, here["node"]))
    rows: list[list[Cell]] = []
    for place in places:
        is_clearing = place == _CLEARING_PLACE
        for pair in zip_longest(*(accounts.get(place, ()) for accounts in sides)):
            if is_clearing or any(account is not None and account["balance"] for account in pair):
                cells = [
                    _name_and_balance(account, book["currency"]) for account, book in zip(pair, books, strict=True)
                ]
                rows.append([Text(cell, style="yellow" if is_clearing else "") for cell in chain(*cells)])
    return rows


def _by_place(book: Facts, peer: str) -> Mapping[str, list[Facts]]:
    found: dict[str, list[Facts]] = {}
    for account in book["accounts"]:
        kind, _, rest = account["id"].partition(":")
        name = rest.removesuffix(f"@{book['node']}")
        if kind != "node":
            place = _HOLDERS_PLACE
        elif name == f"clearing.{peer}":
            place = _CLEARING_PLACE
        else:
            place = name if account["currency"] == book["currency"] else f"{name} in {account['currency']}"
        found.setdefault(place, []).append(account)
    return found


async def _check(play: Play, city: City) -> Facts:
    words = ("ledger", "check", str(play.nodes.of(city).directory))
    findings = await play.nodes.json_command(play.nodes.of(city), *words)
    holding = sum(each["holds"] for each in findings)
    return {"node": city.node_id, "command": play.nodes.shown(*words), "invariants": len(findings), "holding": holding}


async def _reconcile(play: Play) -> Facts:
    words = ("ledger", "reconcile", str(play.munich.directory), BUYER.node_id)
    return {"command": play.nodes.shown(*words), **await play.nodes.json_command(play.munich, *words)}


def _show_settled(page: Page, facts: Facts) -> None:
    show_books(page, facts)
    for each in facts["checks"]:
        page.request(f"$ {each['command']}", f"{each['holding']} of {each['invariants']} invariants hold")
    compared = facts["reconciliation"]
    verdict = "both agree" if compared["agrees"] else f"they differ: {compared['difference']['reason']}"
    page.request(f"$ {compared['command']}", f"{verdict}, entries: {compared['compared']}")


def show_books(page: Page, facts: Facts) -> None:
    """What `read_books` gave as one table, each city in its own currency, the backing below the sums."""
    books = facts["books"]
    sums = [cell for book in books for cell in _bold("sum", amount(book["sums"][book["currency"]]))]
    rows = [*_side_by_side(books, _PLACES), sums, *_side_by_side(books, _BACKING_PLACES)]
    page.table([name for book in books for name in (f"{book['node']}'s books", f">{book['currency']}")], rows)
    page.say("Issuance is minus what circulates; so each city's books sum to nothing.")
    page.say("The clearing accounts mirror each other: " + (_debt(facts["owed"]) or "nothing is owed any more."))


def _debt(owed: Mapping[str, Decimal]) -> str | None:
    return next((f"{node_id} owes {amount(each)}." for node_id, each in owed.items() if each > 0), None)


def _name_and_balance(account: Facts | None, currency: str) -> tuple[str, str]:
    if account is None:
        return "", ""
    name = account["id"].partition("@")[0]
    # Below another currency's heading it has to say its own.
    return name if account["currency"] == currency else f"{name}, {account['currency']}", amount(account["balance"])


def _bold(*cells: str) -> list[Cell]:
    return [Text(cell, style="bold") for cell in cells]


ACCOUNTS: Final = Act(
    "accounts", "Munich and Vienna each keep a ledger, in a currency of their own", _open, _show_accounts
)
BOOKS: Final = Act("books", "Both cities' books, settled", _settle, _show_settled)
