"""The JSON Schemas of all entities: compiled for the verdict, interpreted for the explanation.

jsonschema-rs decides. Only where it says no, jsonschema goes through the document again and names every violation.
Both judge Decimals exactly and share the predicates of `formats`. Patterns are read as ECMA-262 reads them, which is
what JSON Schema asks for: `$` is the end alone, `\\d` an ASCII digit.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from functools import cache, cached_property
from typing import Any, cast

import jsonschema
import jsonschema_rs

from loopd.protocol.ecma_pattern import ecma_search
from loopd.protocol.formats import FORMATS
from loopd.protocol.json_text import pointer, walk
from loopd.protocol.limits import EXPLAINED_VALUES_MAX, VIOLATIONS_MAX
from loopd.protocol.published_files import published_files

# Which file holds which entities; the file names are those of the published ids.
ENTITIES_BY_FILE: Mapping[str, tuple[str, ...]] = {
    "material-dna": ("MaterialDNA",),
    "product-dna": ("ProductDNA",),
    "offer": ("Offer",),
    "match": ("Match",),
    "transfer": ("Transfer",),
    "material-status": ("MaterialStatusUpdate",),
    "product-status": ("ProductStatusUpdate",),
    "handshake": ("NodeHandshake", "NodeHandshakeResponse"),
    "node-info": ("NodeInfo", "NodeRegistry", "NodeStatus"),
    "loopcoin": ("LoopCoinConfig", "LoopCoinTransfer", "InterNodeSettlement"),
    "loopsignal": ("LoopSignalConfig", "LoopVote", "SignalProposal"),
    "transaction": ("MaterialTransaction", "Settlement", "TransactionStatus"),
    "federate-accepted": ("FederateAcceptedResponse",),
    "material-announcement": ("MaterialAnnouncement",),
    "material-offer": ("MaterialOffer",),
    "bid-status": ("BidStatus",),
    "bid-withdrawal": ("BidWithdrawal",),
    "mirror-update": ("MirrorUpdate",),
    "status-request": ("StatusRequest",),
    "settlement-messages": (
        "SettlementRequest",
        "SettlementPrepare",
        "SettlementAnswer",
        "SettlementDecision",
        "SettlementAcknowledgement",
        "SettlementInquiry",
    ),
    "netting-messages": ("NettingRefusal", "DischargeNotice", "DischargeAnswer"),
    "loop-demand": ("LoopDemand",),
    "key-rotation": ("KeyRotation",),
    "key-revocation": ("KeyRevocation",),
}
_FILE_BY_ENTITY = {entity: name for name, entities in ENTITIES_BY_FILE.items() for entity in entities}
ENTITIES: frozenset[str] = frozenset(_FILE_BY_ENTITY)


@dataclass(frozen=True, slots=True)
class Violation:
    """One thing that is wrong with a document: where (JSON pointer), which rule, and what the rule asks for.

    The message names allowed values and bounds, never what the document says there.
    """

    pointer: str
    rule: str
    message: str

    def as_json(self) -> dict[str, str]:
        return {"pointer": self.pointer, "rule": self.rule, "message": self.message}


@cache
def schema_file(name: str) -> dict[str, Any]:
    """A schema file as it is published, by its name such as `handshake`. Not to be changed by the caller."""
    text = published_files("schemas").joinpath(f"{name}.schema.json").read_text("utf-8")
    # As Decimals, so that a bound of 0.01 is that and not the double beside it.
    document: dict[str, Any] = json.loads(text, parse_float=Decimal)
    return document


@cache
def entity_schema(entity: str) -> dict[str, Any]:
    """The schema of one entity by its `@type`; KeyError for none. Not to be changed by the caller."""
    document = schema_file(_FILE_BY_ENTITY[entity])
    if "$defs" not in document:
        return document
    return {"$schema": document["$schema"], **document["$defs"][entity]}


def is_valid(entity: str, value: Any) -> bool:
    """The verdict alone: what a document costs on the way in."""
    return _compiled(entity).is_valid(value)


def schema_errors(entity: str, value: Any) -> list[Violation]:
    """Every violation of an entity's schema in the order of the document, none if it holds.

    At most `VIOLATIONS_MAX` are listed; of a document with more than `EXPLAINED_VALUES_MAX` values the first alone.
    """
    return _compiled(entity).errors(value)


class CompiledSchema:
    """A JSON Schema as it is asked: an entity's, or the small one of a request that is no LOOP document."""

    def __init__(self, schema: Mapping[str, Any]) -> None:
        self._schema = dict(schema)
        self._compiled = jsonschema_rs.Draft202012Validator(
            self._schema, validate_formats=True, formats=dict(FORMATS), ignore_unknown_formats=False
        )

    def is_valid(self, value: Any) -> bool:
        """The verdict alone."""
        return self._compiled.is_valid(value)

    def errors(self, value: Any) -> list[Violation]:
        """Every violation, within the bounds that `schema_errors` tells; none if the schema holds."""
        if self._compiled.is_valid(value):
            return []
        violations: list[Violation] = []
        if not _has_more_values(value, EXPLAINED_VALUES_MAX):
            for error in self._interpreted.iter_errors(value):
                violations.extend(_explain(error))
                if len(violations) >= VIOLATIONS_MAX:
                    break
        # The verdict stands where the interpreter sees nothing wrong, so the compiled validator says why itself.
        return violations[:VIOLATIONS_MAX] or [_first_violation(self._compiled, self._schema, value)]

    @cached_property
    def _interpreted(self) -> Any:
        return _Interpreter(self._schema, format_checker=_FORMAT_CHECKER)


@cache
def _compiled(entity: str) -> CompiledSchema:
    return CompiledSchema(entity_schema(entity))


def _is_integer(_: Any, value: object) -> bool:
    if isinstance(value, Decimal):
        return value.is_finite() and value == value.to_integral_value()
    return isinstance(value, int) and not isinstance(value, bool)


def _check_pattern(validator: Any, pattern: str, instance: object, _: Any) -> Iterable[jsonschema.ValidationError]:
    if validator.is_type(instance, "string") and not ecma_search(pattern, str(instance)):
        yield jsonschema.ValidationError("the pattern does not match")


_Interpreter: Any = jsonschema.validators.extend(  # type: ignore[no-untyped-call]
    jsonschema.Draft202012Validator,
    validators={"pattern": _check_pattern},
    type_checker=jsonschema.Draft202012Validator.TYPE_CHECKER.redefine("integer", _is_integer),
)


def _format_checker() -> jsonschema.FormatChecker:
    checker = jsonschema.FormatChecker(formats=())
    for name, predicate in FORMATS.items():
        checker.checks(name)(_for_strings_only(predicate))
    return checker


def _for_strings_only(predicate: Any) -> Any:
    return lambda value: not isinstance(value, str) or predicate(value)


_FORMAT_CHECKER = _format_checker()


def _has_more_values(value: Any, count: int) -> bool:
    return any(index >= count for index, _ in enumerate(walk(value)))


def _explain(error: jsonschema.ValidationError) -> Iterable[Violation]:
    path = list(error.absolute_path)
    rule, bound = str(error.validator), cast(Any, error.validator_value)
    instance = cast(Any, error.instance)
    if rule == "required":
        missing = [name for name in bound if name not in instance]
        # jsonschema reports each missing name on its own, quoted at the start of the message.
        names = [name for name in missing if error.message.startswith(repr(name))]
        return [Violation(pointer([*path, name]), rule, "This field is required.") for name in names]
    if rule == "additionalProperties" and bound is False:
        known = error.schema["properties"] if isinstance(error.schema, dict) else {}
        unknown = [name for name in instance if name not in known]
        return [Violation(pointer([*path, name]), rule, _closed(known)) for name in unknown[:VIOLATIONS_MAX]]
    if rule == "dependentRequired":
        missing = [name for key, names in bound.items() if key in instance for name in names]
        names = [name for name in missing if error.message.startswith(repr(name))]
        key = next(iter(bound))
        return [Violation(pointer([*path, name]), rule, f"This field is required beside `{key}`.") for name in names]
    if "propertyNames" in error.absolute_schema_path:
        return [Violation(pointer([*path, str(instance)]), "propertyNames", _message(rule, bound))]
    return [Violation(pointer(path), "forbidden" if rule == "not" else rule, _message(rule, bound))]


def _first_violation(compiled: jsonschema_rs.Draft202012Validator, schema: Mapping[str, Any], value: Any) -> Violation:
    try:
        compiled.validate(value)
    except jsonschema_rs.ValidationError as error:
        bound: Any = schema
        for step in error.schema_path:
            bound = bound[step]
        rule = str(error.schema_path[-1])
        if isinstance(error.kind, jsonschema_rs.ValidationErrorKind.Required):
            return Violation(pointer([*error.instance_path, error.kind.property]), rule, "This field is required.")
        return Violation(pointer(error.instance_path), "forbidden" if rule == "not" else rule, _message(rule, bound))
    raise RuntimeError("a validator refused a document and accepted it again")


_TYPE_WORDS = {
    "object": "an object",
    "array": "an array",
    "string": "a string",
    "integer": "an integer",
    "number": "a number",
    "boolean": "true or false",
    "null": "null",
}
_FORMAT_WORDS = {
    "date-time": "a date-time with its zone, such as 2026-11-21T04:10:00Z",
    "date": "a date, such as 2026-11-21",
    "uri": "an absolute URI, such as https://example.org/a",
    "uuid": "a UUID",
    "email": "an e-mail address",
}
_MESSAGES = {
    "minimum": "The number must be at least {}.",
    "exclusiveMinimum": "The number must be more than {}.",
    "maximum": "The number must be at most {}.",
    "minLength": "The string must have at least {} characters.",
    "maxLength": "The string must have at most {} characters.",
    "minItems": "The array must have at least {} items.",
    "maxItems": "The array must have at most {} items.",
    "pattern": "The string must match {}",
    "not": "This field is forbidden: it is for personal data.",
}


def _message(rule: str, bound: Any) -> str:
    if rule == "type":
        types = [bound] if isinstance(bound, str) else bound
        return f"The value must be {' or '.join(_TYPE_WORDS[name] for name in types)}."
    if rule == "enum":
        return f"The value must be one of: {', '.join(map(str, bound))}."
    if rule == "const":
        return f"The value must be {json.dumps(bound)}."
    if rule == "format":
        return f"The string must be {_FORMAT_WORDS[bound]}."
    if rule == "anyOf":
        names = [name for branch in bound for name in branch.get("required", ())]
        return f"At least one of these fields is required: {', '.join(names)}."
    return _MESSAGES.get(rule, "The schema's rule `" + rule + "` does not hold.").format(bound)


def _closed(known: Iterable[str]) -> str:
    return f"This entity has no other fields than: {', '.join(known)}."
