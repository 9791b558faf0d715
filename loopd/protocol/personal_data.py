"""Finds personal data in a document: mailboxes, telephone numbers, bank accounts, and keys that name a person.

LOOP documents describe goods, not people (§3.5, §10.3). What is found is reported by its place alone, never by its
value. The rules lean to precision: the codes, numbers and addresses that goods carry must pass.
"""

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

from loopd.protocol.json_text import pointer

# Fields of an entity that may hold what is refused elsewhere: the office's, and a key in its armour.
_EXEMPT_FIELDS: dict[str, frozenset[str]] = {"NodeInfo": frozenset({"contact", "public_key"})}
_EXEMPT_ANYWHERE = frozenset({"public_key"})


# The shortest personal data, a mailbox such as a@b.de or a number of six digits.
_MIN_CHARACTERS = 6


def find_personal_data(value: Any, entity: str = "") -> list[tuple[str, str]]:
    """The places of personal data in a JSON value: (JSON pointer, kind), in the order of the document.

    The kind is `email`, `phone`, `iban` or `person`. Where a key is itself the personal data, the pointer ends at the
    object that has it.
    """
    if not _is_suspicious(value, _EXEMPT_FIELDS.get(entity, _EXEMPT_ANYWHERE)):
        return []
    return list(_findings(value, (), _EXEMPT_FIELDS.get(entity, _EXEMPT_ANYWHERE), ""))


def _is_suspicious(value: Any, exempt: frozenset[str]) -> bool:
    """The verdict alone, without places: this is what every document costs."""
    pending: list[tuple[str, Any]] = [("", value)]
    while pending:
        key, item = pending.pop()
        if isinstance(item, str):
            if _kind_of_text(item, key) is not None:
                return True
        elif isinstance(item, dict):
            for name, child in item.items():
                if name in exempt:
                    continue
                if kind_of_key(name) is not None:
                    return True
                if isinstance(child, str):
                    if len(child) >= _MIN_CHARACTERS and _kind_of_text(child, name) is not None:
                        return True
                elif isinstance(child, dict | list):
                    pending.append((name, child))
        elif isinstance(item, list):
            pending.extend((key, child) for child in item if isinstance(child, str | dict | list))
        exempt = _EXEMPT_ANYWHERE
    return False


def _findings(value: Any, path: tuple[str | int, ...], exempt: frozenset[str], key: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, str):
        kind = _kind_of_text(value, key)
        if kind is not None:
            yield pointer(path), kind
    elif isinstance(value, dict):
        for name, child in value.items():
            if name in exempt:
                continue
            kind = kind_of_key(name)
            if kind is not None:
                yield pointer((*path, name) if kind == "person" else path), kind
            else:
                yield from _findings(child, (*path, name), _EXEMPT_ANYWHERE, name)
    elif isinstance(value, list):
        for index, child in enumerate(value):
            yield from _findings(child, (*path, index), _EXEMPT_ANYWHERE, key)


# --- Keys -------------------------------------------------------------------------------------------------------------

_KEY_MAX_CHARACTERS = 100
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[^\W\d_A-Za-z]+|\d+")
# What every key below has in it: most others need no closer look.
_PERSON_HINT = re.compile("cont|kont|mail|phon|fon|tel|fax|mobil|hand|landl|whats|name|birth|dob|geb|iban|ansp", re.I)
# Joined without separators, so that first_name, firstName and First-Name are one.
_PERSON_KEYS = frozenset({
    "contact", "contacts", "contactperson", "contactname", "contactdetails", "contactinfo", "contactdata",
    "contactnumber",
    "email", "emails", "emailaddress", "mail", "mailaddress",
    "phone", "phones", "phonenumber", "phonenumbers", "telephone", "telephonenumber", "telefon", "telefonnummer",
    "tel", "fax", "faxnumber",
    "mobile", "mobilenumber", "mobilephone", "cellphone", "handy", "handynummer", "landline", "whatsapp",
    "firstname", "lastname", "middlename", "surname", "forename", "givenname", "familyname", "fullname",
    "maidenname", "nickname", "personname",
    "vorname", "nachname", "familienname", "ansprechpartner", "ansprechpartnerin", "ansprechperson", "kontakt",
    "kontaktperson",
    "birth", "birthday", "birthdate", "birthplace", "birthyear", "dateofbirth", "placeofbirth", "yearofbirth",
    "dob", "geburtsdatum", "geburtstag",
    "iban",
})  # fmt: skip
_PERSON_ENDINGS = (
    ("contact", "person"), ("contact", "name"), ("contact", "details"), ("contact", "info"), ("contact", "number"),
    # Not every contact is a person's: materials have food contact.
    ("seller", "contact"), ("buyer", "contact"), ("owner", "contact"), ("operator", "contact"), ("office", "contact"),
    ("site", "contact"), ("emergency", "contact"), ("main", "contact"), ("primary", "contact"), ("local", "contact"),
    ("email",), ("e", "mail"), ("email", "address"), ("mail", "address"),
    ("phone",), ("phone", "number"), ("phone", "no"), ("telephone",), ("telephone", "number"), ("telefon",),
    ("mobile", "number"), ("mobile", "phone"), ("fax",), ("fax", "number"),
    ("first", "name"), ("last", "name"), ("middle", "name"), ("given", "name"), ("family", "name"), ("full", "name"),
    ("firstname",), ("lastname",), ("fullname",), ("surname",), ("forename",), ("birthday",), ("birthdate",),
    ("birth", "date"), ("date", "of", "birth"), ("iban",),
)  # fmt: skip
_PERSON_BEGINNINGS = (("birth",), ("email",), ("e", "mail"), ("phone", "number"))


@lru_cache(maxsize=4096)
def kind_of_key(key: str) -> str | None:
    """What a key betrays: `person` where it names one, else what its text holds as any other text would."""
    if len(key) <= _KEY_MAX_CHARACTERS and _PERSON_HINT.search(key):
        words = tuple(word.lower() for word in _WORD.findall(key))
        if "".join(words) in _PERSON_KEYS:
            return "person"
        if any(words[-len(ending) :] == ending for ending in _PERSON_ENDINGS):
            return "person"
        if any(words[: len(beginning)] == beginning for beginning in _PERSON_BEGINNINGS):
            return "person"
    return _kind_of_text(key, "")


# --- Texts ------------------------------------------------------------------------------------------------------------

# A telephone number has six digits or more, a bank account more; neither stands in a text with fewer.
_SIX_DIGITS = re.compile(r"(?:[^0-9]*[0-9]){6}")
# Nor does one begin without a plus or a bracket before a digit, a zero that begins a number, a word for a telephone, or
# a country's letters with two digits.
_NUMBER_HINT = re.compile(
    r"[+(]|(?<![\w.,:/-])0[\d ]|[Tt][Ee][Ll]|[FfHh][Oo][Nn]|[Ff][Aa][Xx]|[Mm][Oo][Bb]|[Hh][Aa][Nn][Dd][Yy]"
    r"|(?<![A-Za-z0-9])[A-Za-z]{2}\d\d"
)


def _kind_of_text(text: str, key: str) -> str | None:
    if ("@" in text or "%40" in text) and _has_email(text):
        return "email"
    if not _SIX_DIGITS.match(text) or not _NUMBER_HINT.search(text):
        return None
    if _LOOP_ID.fullmatch(text) is None and _has_iban(text):
        return "iban"
    if _has_phone(text, key):
        return "phone"
    return None


# Looked for from the at sign on, so that a long text without one costs a single pass.
_EMAIL = re.compile(r"(?<=[\w.%+'-])(?:@|%40)(?:[\w-]{1,63}\.)+[^\W\d_]{2,63}(?![\w@])")
_ACCOUNT = re.compile(r"(?:user|business|node):[^@]+@[a-z0-9-]+\.loop", re.ASCII)
_ACCOUNT_BEGINNING = re.compile(r"(?<!\w)(?:user|business|node):[^@\s]+\Z")
_ACCOUNT_MAX_CHARACTERS = 200


def _has_email(text: str) -> bool:
    if _ACCOUNT.fullmatch(text):
        return False
    for match in _EMAIL.finditer(text):
        before = text[max(0, match.start() - _ACCOUNT_MAX_CHARACTERS) : match.start()]
        if not (match.group().endswith(".loop") and _ACCOUNT_BEGINNING.search(before)):
            return True
    return False


# How long an IBAN is in each country (ISO 13616).
_IBAN_LENGTH = {
    "AD": 24, "AE": 23, "AL": 28, "AT": 20, "AZ": 28, "BA": 20, "BE": 16, "BG": 22, "BH": 22, "BR": 29, "BY": 28,
    "CH": 21, "CR": 22, "CY": 28, "CZ": 24, "DE": 22, "DK": 18, "DO": 28, "EE": 20, "EG": 29, "ES": 24, "FI": 18,
    "FO": 18, "FR": 27, "GB": 22, "GE": 22, "GI": 23, "GL": 18, "GR": 27, "GT": 28, "HR": 21, "HU": 28, "IE": 22,
    "IL": 23, "IS": 26, "IT": 27, "JO": 30, "KW": 30, "KZ": 20, "LB": 28, "LI": 21, "LT": 20, "LU": 20, "LV": 21,
    "MC": 27, "MD": 24, "ME": 22, "MK": 19, "MT": 31, "NL": 18, "NO": 15, "PK": 24, "PL": 28, "PS": 29, "PT": 25,
    "QA": 29, "RO": 24, "RS": 22, "SA": 24, "SE": 24, "SI": 19, "SK": 24, "SM": 27, "TN": 24, "TR": 26, "UA": 29,
    "VA": 22, "XK": 20,
}  # fmt: skip
_IBAN_BEGINNING = re.compile(r"(?<![A-Za-z0-9])[A-Za-z]{2}\d{2}", re.ASCII)
_IBAN_SEPARATORS = " -\u00a0\u202f"
_IBAN_GROUP = 4
# Random characters behind a hyphen pass for an IBAN now and then.
_LOOP_ID = re.compile(r"(?:MAT|PRD|TXN)-[A-Z0-9-]+", re.ASCII)


def _has_iban(text: str) -> bool:
    for match in _IBAN_BEGINNING.finditer(text):
        length = _IBAN_LENGTH.get(match.group()[:2].upper())
        if length is None:
            continue
        # Printed in groups of four, an IBAN has at most one separator for each group. Hyphens stand between all of
        # them or nowhere: a UUID's do not.
        window = text[match.start() : match.start() + 2 * length]
        symbols, hyphens = "", 0
        for position, symbol in enumerate(window):
            if symbol.isascii() and symbol.isalnum():
                symbols += symbol.upper()
                if len(symbols) == length:
                    following = window[position + 1 : position + 2]
                    if not following.isalnum() and hyphens in (0, (length - 1) // _IBAN_GROUP) and _is_iban(symbols):
                        return True
                    break
            elif symbol not in _IBAN_SEPARATORS or len(symbols) % _IBAN_GROUP:
                break
            else:
                hyphens += symbol == "-"
    return False


def _is_iban(symbols: str) -> bool:
    return int("".join(str(int(symbol, 36)) for symbol in symbols[4:] + symbols[:4])) % 97 == 1


_URL = re.compile(r"\b[A-Za-z][A-Za-z0-9+.-]{0,30}://\S+|\burn:\S+")
_GAP = r"[ \u00a0\u2009\u202f]?[-./ \u00a0\u2009\u202f\u2010-\u2013()]{0,3}"
_INTERNATIONAL = re.compile(rf"(?<![\w+.,-])\(?\+\(?[1-9](?:{_GAP}\d){{6,16}}(?!\d)")
# With 00 for the plus, separators or a European or American country code tell it from a plain number.
_INTERNATIONAL_00 = re.compile(
    rf"(?<![\w+.,:/-])00(?:[ \u00a0-]?(?:1|3[0-9]|4[0-9]|7|90|420|421)[ \u00a0/()-]+\d(?:{_GAP}\d){{5,14}}"
    rf"|(?:3[0-469]|4[0134-9]|90)[1-9]\d{{7,11}})(?!\d)"
)
# An area code with its zero, a separator, five digits or more. In brackets, four are enough.
_NATIONAL = re.compile(
    r"(?<![\w.,:/+-])0[1-9]\d{1,3}(?: ?[/–-] ?|[ \u00a0])[1-9]\d(?:[ \u00a0-]?\d){3,8}(?![\w/]|[.,-]\d)"
)
_BRACKETED = re.compile(
    r"(?<![\w.,+-])\((?:0\d{0,4}|[2-9]\d\d(?=\) ?\d{3}-\d{4}))\)[ \u00a0/-]{0,2}\d(?:[ \u00a0/-]?\d){3,9}(?!\d)"
)
_NAMED = re.compile(
    r"(?<![^\W_])(?:tel|telefon|telephone|phone|fon|fax|telefax|mobil|mobile|mobiltelefon|handy)"
    r"(?:[ -]?(?:nr|no|number|nummer))?\.?[ \u00a0]?:?[ \u00a0]{0,2}"
    r"(\(?[+0-9(](?:[-./ \u00a0()]{0,3}\d){5,15})(?!\d)",
    re.IGNORECASE,
)
_TRADE_CODE = re.compile(r"\d{4} \d\d(?: \d\d){0,2}")
_COORDINATES = re.compile(r"\+\d{1,3}\.\d{1,8}(?: ?-\d{1,3}\.\d+)?")
_ISO_DATE = re.compile(r"(?:19|20)\d\d-?[01]\d-?[0-3]\d")
_DIGITS = re.compile(r"\d+")
_PHONE_MIN_DIGITS = 8
_PHONE_MAX_DIGITS = 15


def _has_phone(text: str, key: str) -> bool:
    if ":" in text:
        text = _URL.sub(" ", text)
    for match in _INTERNATIONAL.finditer(text):
        digits = sum(map(len, _DIGITS.findall(match.group())))
        if _PHONE_MIN_DIGITS <= digits <= _PHONE_MAX_DIGITS and not _COORDINATES.fullmatch(match.group()):
            return True
    if any(not _ISO_DATE.match(match.group(1)) for match in _NAMED.finditer(text)):
        return True
    if _names_identifier(key):
        return False
    if any(not _is_trade_item(match.group()) for match in _INTERNATIONAL_00.finditer(text)):
        return True
    if any(not _TRADE_CODE.fullmatch(match.group()) for match in _NATIONAL.finditer(text)):
        return True
    return _BRACKETED.search(text) is not None


_TRADE_ITEM_LENGTHS = frozenset({8, 12, 13, 14})


def _is_trade_item(text: str) -> bool:
    """Whether the digits are a GTIN, by its length and its check digit."""
    if not text.isdigit() or len(text) not in _TRADE_ITEM_LENGTHS:
        return False
    weighted = sum(int(digit) * (3 if index % 2 == 0 else 1) for index, digit in enumerate(reversed(text[:-1])))
    return (weighted + int(text[-1])) % 10 == 0


_IDENTIFIER_ENDINGS = frozenset({
    "id", "ids", "code", "codes", "number", "no", "nr", "ref", "refs", "serial", "batch", "lot", "gtin", "ean",
    "sku", "digest", "hash", "model", "version", "url",
})  # fmt: skip


@lru_cache(maxsize=4096)
def _names_identifier(key: str) -> bool:
    """Whether a key is for an identifier of goods: such may look like a national telephone number."""
    words = _WORD.findall(key[-_KEY_MAX_CHARACTERS:])
    return bool(words) and words[-1].lower() in _IDENTIFIER_ENDINGS
