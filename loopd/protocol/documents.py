"""A document from outside, checked in the order of the protocol: JSON, context, schema, personal data.

Size comes before and is the door's affair; what the document means comes after and is its module's.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from loopd.protocol import schemas
from loopd.protocol.contexts import KNOWN_CONTEXTS
from loopd.protocol.errors import Invalid
from loopd.protocol.json_ld import check_context_urls, compact, is_expanded, unknown_context
from loopd.protocol.json_text import JSON, dump_json, read_json
from loopd.protocol.personal_data import find_personal_data
from loopd.protocol.schemas import Violation, schema_errors

__all__ = ["JSON", "Document", "Violation", "check_document", "check_value", "dump_json", "read_json", "schema_errors"]


@dataclass(frozen=True, slots=True)
class Document:
    """A document that holds: its `@type`, its value (numbers are ints and Decimals), and the bytes as they came.

    `value` is what was received, unless that was JSON-LD in another form: then it is the same in LOOP's own terms.
    """

    type: str
    value: dict[str, Any]
    received: bytes


def check_document(body: bytes, expected: str | frozenset[str]) -> Document:
    """The document in the bytes, if it is an entity of an expected `@type`.

    Refused as `Invalid` with the reasons of `read_json`, or `unknown_context` (with `details.known`), `bad_json_ld`,
    `schema` (with `details.errors`: pointer, rule and message of every violation), `personal_data` (the same, without
    the value).
    """
    received = value = read_json(body)
    context = value.get("@context") if isinstance(value, dict) else None
    if isinstance(context, str):
        if context not in KNOWN_CONTEXTS:
            raise unknown_context()
        if body.count(b"@context") > 1:
            check_context_urls(value)
    elif context is not None or is_expanded(value):
        value = _restored(compact(value, len(body)), expected)
    elif isinstance(value, dict):
        raise unknown_context()
    entity = check_value(value, expected)
    if value is not received:
        # What expansion drops is kept with the bytes all the same.
        refuse_personal_data(received, entity)
    return Document(entity, value, body)


def check_value(value: Any, expected: str | frozenset[str]) -> str:
    """Schema and personal data of a value in LOOP's own terms: its `@type`, or `Invalid`."""
    names = frozenset({expected}) if isinstance(expected, str) else expected
    if not isinstance(value, dict):
        raise _schema_refusal([Violation("", "type", "The document must be an object.")])
    entity = value.get("@type")
    if not isinstance(entity, str) or entity not in names:
        message = f"The value must be one of: {', '.join(sorted(names))}."
        rule = "enum" if "@type" in value else "required"
        raise _schema_refusal([Violation("/@type", rule, message)])
    violations = schema_errors(entity, value)
    if violations:
        raise _schema_refusal(violations)
    refuse_personal_data(value, entity)
    return entity


def refuse_personal_data(value: Any, entity: str = "") -> None:
    """Raises `Invalid` with the reason `personal_data` and the places, where a JSON value holds any."""
    found = find_personal_data(value, entity)
    if found:
        errors = [
            Violation(place, "personal_data", f"{_KINDS[kind]} has no place here.").as_json() for place, kind in found
        ]
        raise Invalid("personal_data", "The document contains personal data.", {"errors": errors})


_KINDS: Mapping[str, str] = {
    "email": "An e-mail address",
    "phone": "A telephone number",
    "iban": "A bank account",
    "person": "A field that names a person",
}


def _schema_refusal(violations: list[Violation]) -> Invalid:
    errors = [violation.as_json() for violation in violations]
    return Invalid("schema", "The document does not fit its schema; see details.errors.", {"errors": errors})


def _restored(value: dict[str, Any], expected: str | frozenset[str]) -> dict[str, Any]:
    """Compaction gives an array of one as its member; the schema knows which fields are arrays."""
    entity = value.get("@type")
    if not isinstance(entity, str) or entity not in schemas.ENTITIES or entity not in (expected, *expected):
        return value
    _restore_arrays(schemas.entity_schema(entity), value)
    return value


def _restore_arrays(schema: Mapping[str, Any], value: Any) -> None:
    if isinstance(value, list):
        for item in value:
            _restore_arrays(schema.get("items", {}), item)
    elif isinstance(value, dict):
        for name, field in schema.get("properties", {}).items():
            if name not in value:
                continue
            if field.get("type") == "array" and not isinstance(value[name], list):
                value[name] = [value[name]]
            _restore_arrays(field, value[name])
