"""What a refused document is told: every violation, where it is, which rule, and what the rule asks for."""

import json
from decimal import Decimal

import pytest

from loopd.protocol.formats import is_email, is_uri
from loopd.protocol.limits import EXPLAINED_VALUES_MAX, VIOLATIONS_MAX
from loopd.protocol.schemas import ENTITIES, Violation, entity_schema, schema_errors

MATERIAL = {
    "@context": "https://localloop.urbnia.com/projects/loop-protocol/contexts/loop-v0.1.1.jsonld",
    "@type": "MaterialDNA",
    "schema_version": "0.1.1",
    "id": "MAT-DE-MUC-2025-PLASTIC-B847F3",
    "category": "plastic-pet",
    "quantity": {"value": Decimal("1000.5"), "unit": "kg"},
    "origin_city": "Munich",
    "current_city": "Munich",
    "available_from": "2025-05-27T10:00:00Z",
}
ANNOUNCEMENT = {
    "@context": MATERIAL["@context"],
    "@type": "MaterialAnnouncement",
    "material": "MAT-DE-MUC-2025-FOOD-B847F3",
    "origin": "munich.loop",
    "available": True,
}
SCOPE = {
    "issued_at": "2025-05-27T10:00:00Z",
    "valid_until": "2025-05-28T10:00:00Z",
    "ttl": 3,
    "radius_km": None,
    "origin_location": {"lat": Decimal("48.1351"), "lon": Decimal("11.5820")},
    "revision": 1,
}


def told(entity, document):
    return [(item.pointer, item.rule) for item in schema_errors(entity, document)]


def test_a_document_that_holds_has_no_violation():
    assert schema_errors("MaterialDNA", MATERIAL) == []


def test_unknown_fields_are_nobody_s_business():
    extended = {**MATERIAL, "colour": "blue", "passport": {"a": [1]}, "classification": {"b": None}}
    assert schema_errors("MaterialDNA", extended) == []


def test_every_violation_is_told_at_once():
    document = {
        **MATERIAL,
        "category": "organic-spent-grain",
        "quantity": {"value": Decimal("-0.1")},
        "quality": Decimal("1.0000000000000000001"),
        "images": ["https://example.org/a.jpg", "a.jpg", 7],
        "contact": "somebody",
        "traceability": {"epcis_event_refs": [{"event_type": "guess"}]},
    }
    del document["id"]
    assert set(told("MaterialDNA", document)) == {
        ("/id", "required"),
        ("/category", "enum"),
        ("/quantity/value", "minimum"),
        ("/quantity/unit", "required"),
        ("/quality", "maximum"),
        ("/images/1", "format"),
        ("/images/2", "type"),
        ("/contact", "forbidden"),
        ("/traceability/epcis_event_refs/0/event_type", "enum"),
        ("/traceability/epcis_event_refs/0/event_id", "required"),
    }


@pytest.mark.parametrize(
    ("entity", "fields", "message"),
    [
        ("MaterialDNA", {"quality": 2}, "The number must be at most 1."),
        ("MaterialDNA", {"origin_city": "M"}, "The string must have at least 2 characters."),
        ("MaterialDNA", {"images": ["https://a.de"] * 11}, "The array must have at most 10 items."),
        ("MaterialDNA", {"location": 1}, "The value must be an object."),
        ("MaterialDNA", {"id": "x"}, r"The string must match ^MAT-[A-Z]{2}-[A-Z]{3}-\d{4}-[A-Z]+-[A-Z0-9]{6,}$"),
        ("MaterialDNA", {"expires": "soon"}, "a date-time with its zone, such as 2026-11-21T04:10:00Z"),
        ("MaterialDNA", {"passport": {"passport_status": "x"}}, "not_applicable, optional, required, available"),
        ("MaterialAnnouncement", {"radius_km": 0}, "The number must be more than 0."),
        ("MaterialAnnouncement", {"radius_km": "1"}, "The value must be a number or null."),
        ("MaterialOffer", {}, "At least one of these fields is required: material, product."),
        ("NodeHandshakeResponse", {"lab_only": False}, "The value must be true."),
        ("LoopSignalConfig", {"signals": {"plastic": 0}}, "plastic-pet, plastic-hdpe"),
    ],
)
def test_messages_name_what_is_allowed(entity, fields, message):
    assert any(message in item.message for item in schema_errors(entity, fields))


@pytest.mark.parametrize("entity", sorted(ENTITIES))
def test_no_message_tells_what_the_document_said(entity):
    secret = "Ada Lovelace, ada@example.org"
    document = dict.fromkeys(entity_schema(entity)["properties"], secret) | {secret: secret, "signals": {secret: 0}}
    violations = schema_errors(entity, document)
    assert violations
    assert "Ada" not in json.dumps([item.as_json() for item in violations])


def test_an_announcement_with_an_anchor_states_its_whole_scope():
    anchored = {**ANNOUNCEMENT, "hop_anchor": "0a" * 32}
    assert told("MaterialAnnouncement", anchored) == [(f"/{name}", "dependentRequired") for name in SCOPE]
    assert schema_errors("MaterialAnnouncement", {**anchored, **SCOPE}) == []
    assert schema_errors("MaterialAnnouncement", ANNOUNCEMENT) == []


@pytest.mark.parametrize(
    ("fields", "violations"),
    [
        ({"category": "plastic-pet"}, []),
        ({"category": "furniture-office"}, [("/category", "enum")]),
        ({"ttl": 0}, [("/ttl", "minimum")]),
        ({"ttl": 4}, [("/ttl", "maximum")]),
        ({"ttl": Decimal("1.5")}, [("/ttl", "type")]),
        ({"radius_km": Decimal("0.5")}, []),
        ({"quantity": 0, "unit": "t"}, []),
        ({"quantity": {"value": 1, "unit": "kg"}}, [("/quantity", "type")]),
        ({"origin_location": {"lat": 91}}, [("/origin_location/lon", "required"), ("/origin_location/lat", "maximum")]),
        ({"origin": "munich"}, [("/origin", "pattern")]),
        ({"state": ""}, [("/state", "minLength")]),
    ],
)
def test_the_fields_of_an_announcement(fields, violations):
    assert told("MaterialAnnouncement", {**ANNOUNCEMENT, **fields}) == violations


def test_an_announcement_of_a_product_has_a_product_s_category():
    product = {key: value for key, value in ANNOUNCEMENT.items() if key != "material"} | {"product": "PRD-DE-MUC-1"}
    assert told("MaterialAnnouncement", {**product, "category": "furniture-office"}) == []
    assert told("MaterialAnnouncement", {**product, "category": "plastic-pet"}) == [("/category", "enum")]


def test_a_long_list_of_violations_is_cut():
    assert (
        len(schema_errors("MaterialDNA", {**MATERIAL, "certifications": [1] * (VIOLATIONS_MAX + 5)})) == VIOLATIONS_MAX
    )
    assert len(schema_errors("NodeHandshake", {f"key{n}": n for n in range(1000)})) == VIOLATIONS_MAX


@pytest.mark.parametrize(
    ("document", "violation"),
    [
        ({**MATERIAL, "certifications": ["x"] * EXPLAINED_VALUES_MAX + [1]}, ("certifications/2000", "type")),
        ({"certifications": ["x"] * EXPLAINED_VALUES_MAX}, ("@context", "required")),
    ],
)
def test_of_a_huge_document_the_first_violation_is_told(document, violation):
    place, rule = violation
    (item,) = schema_errors("MaterialDNA", document)
    assert isinstance(item, Violation)
    assert (item.pointer, item.rule) == (f"/{place}", rule)


@pytest.mark.parametrize(
    "text",
    [
        "https://example.org", "https://example.org:8443/a/b?c=d&e#f", "http://[::1]:80/", "urn:isbn:0451450523",
        "mailto:a@example.org", "https://user@example.org/", "file:///etc/hosts", "https://example.org/%C3%BC", "a:",
        "https://id.gs1.org/01/09506000134352",
    ],
)  # fmt: skip
def test_uris(text):
    assert is_uri(text)


@pytest.mark.parametrize(
    "text",
    [
        "", "example.org", "/a", "//example.org/a", "https://exa mple.org", "https://example.org/ü", "https://a/%zz",
        "https://example.org/\n", "1http://a", "http://[::1", "http://[zz]/", "http://[:::]/", "http://a:b/", "https://a/{b}",
        "https://a/<b>", "https://a/#b#c", "https://a\\b",
    ],
)  # fmt: skip
def test_no_uris(text):
    assert not is_uri(text)


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("office@munich.example", True), ("a.b+c@sub.munich.example", True), ("office@munich", False), ("@a.de", False),
        ("a@b@c.de", False), (".a@b.de", False), ("a@-b.de", False), ("a b@c.de", False), ("a@b.de\n", False),
        ("x" * 65 + "@b.de", False), ("a@" + "b." * 130 + "de", False),
    ],
)  # fmt: skip
def test_mailboxes(text, holds):
    assert is_email(text) is holds
