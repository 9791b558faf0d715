"""jsonschema-rs decides; jsonschema, with the formats of its own, is held beside it."""

from decimal import Decimal
from functools import cache
from typing import Any

import jsonschema
import jsonschema_rs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loopd.protocol.json_text import dump_json, read_json
from loopd.protocol.schemas import ENTITIES, ENTITIES_BY_FILE, entity_schema, is_valid, schema_errors, schema_file
from tests.conformance.generated import broken_document, valid_document

MODEST = settings(max_examples=40, deadline=None)
SEEDS = st.integers(0, 2**32)
CONTEXT = "https://local-loop-io.github.io/projects/loop-protocol/contexts/loop-v0.2.0.jsonld"


def validator(schema: dict[str, Any]) -> jsonschema.Draft202012Validator:
    return jsonschema.Draft202012Validator(schema, format_checker=jsonschema.Draft202012Validator.FORMAT_CHECKER)


@cache
def oracle(entity: str) -> jsonschema.Draft202012Validator:
    return validator(entity_schema(entity))


@pytest.mark.parametrize("name", ENTITIES_BY_FILE)
def test_every_schema_is_a_schema(name):
    jsonschema.Draft202012Validator.check_schema(schema_file(name))
    jsonschema_rs.meta.validate(schema_file(name))


@pytest.mark.parametrize("entity", sorted(ENTITIES))
@MODEST
@given(seed=SEEDS)
def test_both_accept_every_valid_document(entity, seed):
    document = valid_document(entity, seed)
    assert schema_errors(entity, document) == []
    assert oracle(entity).is_valid(document)
    assert is_valid(entity, read_json(dump_json(document)))


@pytest.mark.parametrize("entity", sorted(ENTITIES))
@MODEST
@given(seed=SEEDS)
def test_both_give_the_same_verdict_on_broken_documents(entity, seed):
    document = broken_document(entity, seed)
    verdict = is_valid(entity, document)
    assert oracle(entity).is_valid(document) is verdict
    violations = schema_errors(entity, document)
    assert bool(violations) is not verdict
    assert len({(item.pointer, item.rule) for item in violations}) == len(violations)


@pytest.mark.parametrize("entity", sorted(ENTITIES))
@MODEST
@given(seed=SEEDS)
def test_a_whole_file_judges_as_its_entity_does(entity, seed):
    name = next(name for name, entities in ENTITIES_BY_FILE.items() if entity in entities)
    whole = validator(schema_file(name))
    for document in (valid_document(entity, seed), {**broken_document(entity, seed), "@type": entity}):
        assert whole.is_valid(document) is oracle(entity).is_valid(document)


def transfer_of(**fields):
    return {
        "@context": CONTEXT,
        "@type": "LoopCoinTransfer",
        "id": "550e8400-e29b-41d4-a716-446655440000",
        "from": "user:maria@munich.loop",
        "to": "business:brewery@munich.loop",
        "amount": 50,
        "currency": "LC-MUC",
        "timestamp": "2025-05-27T14:30:00Z",
        **fields,
    }


STRICT_READING = [
    # A trailing newline is no end of a string, as ECMA-262 has it and Python's `$` has not.
    ({"currency": "LC-MUC\n"}, "/currency", "pattern"),
    ({"from": "user:maria@munich.loop\n"}, "/from", "pattern"),
    # A digit is an ASCII digit.
    ({"schema_version": "0.2.\u0663"}, "/schema_version", "pattern"),
    # No clock here counts leap seconds.
    ({"timestamp": "2016-12-31T23:59:60Z"}, "/timestamp", "format"),
    ({"timestamp": "2025-05-27T14:30:00Z\n"}, "/timestamp", "format"),
    ({"timestamp": "2025-05-27 14:30:00Z"}, "/timestamp", "format"),
    ({"timestamp": "2025-05-27T14:30:00"}, "/timestamp", "format"),
    ({"timestamp": "2025-02-29T14:30:00Z"}, "/timestamp", "format"),
    ({"timestamp": "2025-05-27T14:30:00+24:00"}, "/timestamp", "format"),
    ({"id": "550e8400-e29b-41d4-a716-446655440000\n"}, "/id", "format"),
    ({"id": "{550e8400-e29b-41d4-a716-446655440000}"}, "/id", "format"),
    ({"amount": Decimal("0.0099999999999999999999")}, "/amount", "minimum"),
    ({"amount": "50"}, "/amount", "type"),
    ({"amount": True}, "/amount", "type"),
]


@pytest.mark.parametrize(("fields", "place", "rule"), STRICT_READING)
def test_where_validators_differ_the_strict_reading_rules(fields, place, rule):
    violations = schema_errors("LoopCoinTransfer", transfer_of(**fields))
    assert [(item.pointer, item.rule) for item in violations] == [(place, rule)]


def test_some_of_these_are_differences_indeed():
    lenient = [fields for fields, _, _ in STRICT_READING if oracle("LoopCoinTransfer").is_valid(transfer_of(**fields))]
    assert {"currency": "LC-MUC\n"} in lenient


@pytest.mark.parametrize("amount", [Decimal("0.01"), Decimal("0.010000000000000000001"), Decimal("1E+15"), 10**25])
def test_decimals_are_judged_exactly_at_their_bounds(amount):
    assert schema_errors("LoopCoinTransfer", transfer_of(amount=amount)) == []


@pytest.mark.parametrize(
    ("year", "holds"),
    [
        (2021, True),
        (Decimal("2021.0"), True),
        (Decimal("2.021E+3"), True),
        (Decimal("2021.5"), False),
        (Decimal("1899.9"), False),
    ],
)
def test_an_integer_is_a_number_without_a_fraction_however_it_is_written(year, holds):
    errors = schema_errors("ProductDNA", {"manufacture_year": year})
    assert ("/manufacture_year" not in {item.pointer for item in errors}) is holds
