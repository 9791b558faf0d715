"""Identifiers: MaterialDNA (§4.1), ProductDNA (§4.5.3), nodes, offers, transactions, accounts."""

import re
from dataclasses import dataclass

_MATERIAL = re.compile(r"MAT-([A-Z]{2})-([A-Z]{3})-(\d{4})-([A-Z]+)-([A-Z0-9]{6,})", re.ASCII)
_PRODUCT = re.compile(r"PRD-[A-Z0-9-]{8,}", re.ASCII)
_NODE = re.compile(r"[a-z0-9\-]+\.loop", re.ASCII)
_EXCHANGE = re.compile(r"[A-Z0-9-]{8,}", re.ASCII)
_ACCOUNT = re.compile(r"(user|business|node):[^@]+@([a-z0-9\-]+\.loop)", re.ASCII)

NODE_ID_MAX_CHARACTERS = 253
SUBJECT_ID_MAX_CHARACTERS = 200


@dataclass(frozen=True, slots=True)
class MaterialId:
    """The parts of a MaterialDNA id, `MAT-{COUNTRY}-{CITY}-{YEAR}-{CATEGORY}-{UNIQUE}`."""

    country: str
    city: str
    year: int
    category: str
    unique: str


def parse_material_id(text: str) -> MaterialId:
    """The parts of a MaterialDNA id. ValueError where the pattern of §4.1 does not hold."""
    match = _MATERIAL.fullmatch(text)
    if match is None:
        raise ValueError("not a MaterialDNA id")
    country, city, year, category, unique = match.groups()
    return MaterialId(country, city, int(year), category, unique)


def is_material_id(text: str) -> bool:
    """Whether the text is a MaterialDNA id of bounded length."""
    return len(text) <= SUBJECT_ID_MAX_CHARACTERS and _MATERIAL.fullmatch(text) is not None


def is_product_id(text: str) -> bool:
    """Whether the text is a ProductDNA id of bounded length."""
    return len(text) <= SUBJECT_ID_MAX_CHARACTERS and _PRODUCT.fullmatch(text) is not None


def is_node_id(text: str) -> bool:
    """Whether the text names a node, as `munich.loop` does."""
    return len(text) <= NODE_ID_MAX_CHARACTERS and _NODE.fullmatch(text) is not None


def is_exchange_id(text: str) -> bool:
    """Whether the text can name an Offer, a Match or a Transfer."""
    return len(text) <= SUBJECT_ID_MAX_CHARACTERS and _EXCHANGE.fullmatch(text) is not None


def account_node(text: str) -> str | None:
    """The node of an account id such as `user:maria@munich.loop`, or None where it is no account id."""
    match = _ACCOUNT.fullmatch(text)
    return match.group(2) if match else None
