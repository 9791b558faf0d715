"""The string formats that schemas name, each as one strict predicate that every validator shares."""

import re
from collections.abc import Callable, Mapping
from datetime import date
from ipaddress import AddressValueError, IPv6Address

from loopd.protocol.timestamps import parse_timestamp

_UUID = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}", re.ASCII)
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}", re.ASCII)
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_EMAIL = re.compile(rf"[\w!#$%&'*+/=?^`{{|}}~-]+(?:\.[\w!#$%&'*+/=?^`{{|}}~-]+)*@{_LABEL}(?:\.{_LABEL})+", re.ASCII)
_EMAIL_MAX_CHARACTERS = 254
_EMAIL_LOCAL_MAX_CHARACTERS = 64

# RFC 3986, Appendix A; the authority's host is looked at where it is an address in brackets.
_CHARACTER = r"(?:[\w.~!$&'()*+,;=:@-]|%[0-9A-Fa-f]{2})"
_URI = re.compile(
    rf"""
    [A-Za-z][A-Za-z0-9+.-]*:
    (?: // (?:(?:[\w.~!$&'()*+,;=:-]|%[0-9A-Fa-f]{{2}})*@)?
           (?:\[(?P<address>[0-9A-Fa-f:.]+)\]|(?:[\w.~!$&'()*+,;=-]|%[0-9A-Fa-f]{{2}})*)
           (?::\d*)?
           (?:/{_CHARACTER}*)*
      | (?!//)(?:{_CHARACTER}|/)*
    )
    (?:\?(?:{_CHARACTER}|[/?])*)?
    (?:\#(?:{_CHARACTER}|[/?])*)?
    """,
    re.ASCII | re.VERBOSE,
)


def is_date_time(text: str) -> bool:
    """A date-time of RFC 3339 with its zone, of at most nine decimals of a second; leap seconds are none."""
    try:
        parse_timestamp(text)
    except ValueError:
        return False
    return True


def is_date(text: str) -> bool:
    """A full-date of RFC 3339 that the calendar has."""
    if not _DATE.fullmatch(text):
        return False
    try:
        date.fromisoformat(text)
    except ValueError:
        return False
    return True


def is_uuid(text: str) -> bool:
    """A UUID in its hyphenated form (RFC 9562)."""
    return _UUID.fullmatch(text) is not None


def is_uri(text: str) -> bool:
    """An absolute URI (RFC 3986), so with a scheme; what is outside ASCII is percent-encoded."""
    match = _URI.fullmatch(text)
    if match is None:
        return False
    address = match.group("address")
    if address is None:
        return True
    try:
        IPv6Address(address)
    except AddressValueError:
        return False
    return True


def is_email(text: str) -> bool:
    """A mailbox in the usual dotted form (RFC 5321 without quoted parts and address literals)."""
    local = text.partition("@")[0]
    sized = len(text) <= _EMAIL_MAX_CHARACTERS and len(local) <= _EMAIL_LOCAL_MAX_CHARACTERS
    return sized and _EMAIL.fullmatch(text) is not None


FORMATS: Mapping[str, Callable[[str], bool]] = {
    "date-time": is_date_time,
    "date": is_date,
    "uuid": is_uuid,
    "uri": is_uri,
    "email": is_email,
}
