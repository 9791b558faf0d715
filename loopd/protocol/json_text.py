"""JSON text, read strictly and written exactly (RFC 8259 within the bounds of RFC 7493), numbers as decimals."""

import json
import re
from collections.abc import Iterable, Sequence
from decimal import Decimal, InvalidOperation
from typing import Any, TypeAlias

import orjson

from loopd.protocol.errors import Invalid
from loopd.protocol.limits import JSON_MAX_DEPTH, NUMBER_MAX_CHARACTERS, NUMBER_MAX_EXPONENT

JSON: TypeAlias = dict[str, Any] | list[Any] | str | int | Decimal | bool | None

# An integer of up to this many characters fits into 64 bits; a longer one is kept as a Decimal, as fractions are.
_WORD_CHARACTERS = 18
# Numbers within these powers of ten are written without an exponent.
_PLAIN_EXPONENT = 30
# A key that may be told back to its sender: a plain name. Anything else could be the very datum that is refused.
_PLAIN_KEY = re.compile(r"@?[^\W\d][\w.:/#$~-]{0,79}")


def read_json(body: bytes) -> Any:
    """The value of a JSON text: every number an int or, if it has a fraction, an exponent or many digits, a Decimal.

    Refused as `Invalid` with the reason `not_json` (also for anything but UTF-8 without a byte order mark),
    `duplicate_key`, `not_finite`, `nul_character`, `lone_surrogate`, `nesting_too_deep` or `number_out_of_range`.
    """
    if b"\x00" in body:
        raise _nul_character("")
    try:
        value = _decode(body, _DECODER)
    except _DuplicateKeyError:
        raise _duplicate_key(_decode(body, _EXPLAINING_DECODER)) from None
    if body.count(b"{") + body.count(b"[") > JSON_MAX_DEPTH:
        _check_depth(value)
    if b"\\u" in body:
        _check_characters(value)
    return value


def dump_json(value: Any) -> bytes:
    """Compact UTF-8 JSON, keys in the given order, every Decimal in its exact decimal digits.

    TypeError for what JSON cannot hold, an endless Decimal among it.
    """
    return orjson.dumps(value, default=_write_other)


def pointer(path: Iterable[str | int]) -> str:
    """The JSON pointer (RFC 6901) to a place. It ends before a key that is not a plain name, so that it echoes none."""
    steps = []
    for step in path:
        if isinstance(step, str):
            if not _PLAIN_KEY.fullmatch(step):
                break
            step = step.replace("~", "~0").replace("/", "~1")
        steps.append(f"/{step}")
    return "".join(steps)


def _decode(body: bytes, decoder: json.JSONDecoder) -> Any:
    try:
        return decoder.decode(body.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise Invalid("not_json", f"The text is not UTF-8: see byte {error.start}.", {"byte": error.start}) from None
    except json.JSONDecodeError as error:
        details = {"line": error.lineno, "column": error.colno}
        message = f"The text is not JSON: {error.msg} (line {error.lineno}, column {error.colno})."
        raise Invalid("not_json", message, details) from None
    except RecursionError:
        raise _nesting_too_deep() from None


class _DuplicateKeyError(Exception):
    """Tells the decoder's caller that an object named a key twice."""


class _Flawed(dict[str, Any]):
    """An object that named a key twice, and the key."""

    key = ""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise _DuplicateKeyError
    return result


def _object_or_flawed(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = _Flawed(pairs)
    if len(result) == len(pairs):
        return dict(pairs)
    seen: set[str] = set()
    for key, _ in pairs:
        if key in seen:
            result.key = key
            break
        seen.add(key)
    return result


def _integer(text: str) -> int | Decimal:
    return int(text) if len(text) <= _WORD_CHARACTERS else _decimal(text)


def _decimal(text: str) -> Decimal:
    if len(text) > NUMBER_MAX_CHARACTERS:
        raise _number_out_of_range()
    try:
        number = Decimal(text)
    except InvalidOperation:  # an exponent beyond what the type itself can hold
        raise _number_out_of_range() from None
    if not -NUMBER_MAX_EXPONENT <= number.adjusted() <= NUMBER_MAX_EXPONENT:
        raise _number_out_of_range()
    return number


def _not_finite(_: str) -> Any:
    raise Invalid("not_finite", "NaN and Infinity are no JSON numbers.")


def _decoder(object_hook: Any) -> json.JSONDecoder:
    return json.JSONDecoder(
        object_pairs_hook=object_hook, parse_float=_decimal, parse_int=_integer, parse_constant=_not_finite
    )


_DECODER = _decoder(_object)
_EXPLAINING_DECODER = _decoder(_object_or_flawed)


def _write_other(value: Any) -> orjson.Fragment:
    if not isinstance(value, Decimal) or not value.is_finite():
        raise TypeError("this is no JSON value")
    plain = -_PLAIN_EXPONENT <= value.adjusted() <= _PLAIN_EXPONENT
    return orjson.Fragment(format(value, "f") if plain else str(value))


def _check_depth(value: Any) -> None:
    level = [value] if isinstance(value, dict | list) else []
    for _ in range(JSON_MAX_DEPTH):
        level = [
            child
            for container in level
            for child in (container.values() if isinstance(container, dict) else container)
            if isinstance(child, dict | list)
        ]
        if not level:
            return
    raise _nesting_too_deep()


def walk(value: Any) -> Iterable[tuple[Sequence[str | int], Any]]:
    """Every value inside a JSON value with its path, the value itself first, without recursion."""
    pending: list[tuple[tuple[str | int, ...], Any]] = [((), value)]
    while pending:
        path, item = pending.pop()
        yield path, item
        if isinstance(item, dict):
            pending.extend(((*path, key), child) for key, child in reversed(item.items()))
        elif isinstance(item, list):
            pending.extend(((*path, index), item[index]) for index in range(len(item) - 1, -1, -1))


def _check_characters(value: Any) -> None:
    for path, item in walk(value):
        texts = item if isinstance(item, dict) else (item,) if isinstance(item, str) else ()
        for text in texts:
            if "\x00" in text:
                raise _nul_character(pointer(path))
            if not text.isascii() and _has_surrogate(text):
                place = pointer(path)
                message = "A string has half of a surrogate pair, which is no character."
                raise Invalid("lone_surrogate", message, {"pointer": place})


def _has_surrogate(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return True
    return False


def _duplicate_key(value: Any) -> Invalid:
    for path, item in walk(value):
        if isinstance(item, _Flawed):
            message = "An object names a key more than once."
            return Invalid("duplicate_key", message, {"pointer": pointer([*path, item.key])})
    raise ValueError("the text names no key twice")


def _nul_character(place: str) -> Invalid:
    return Invalid("nul_character", "The text contains the NUL character.", {"pointer": place})


def _nesting_too_deep() -> Invalid:
    return Invalid(
        "nesting_too_deep",
        f"Arrays and objects are nested more than {JSON_MAX_DEPTH} deep.",
        {"max_depth": JSON_MAX_DEPTH},
    )


def _number_out_of_range() -> Invalid:
    return Invalid(
        "number_out_of_range",
        f"A number has more than {NUMBER_MAX_CHARACTERS} characters, or lies beyond 10^±{NUMBER_MAX_EXPONENT}.",
    )
