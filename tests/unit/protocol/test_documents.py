"""The way of a document: JSON, context, schema, personal data; and JSON-LD in forms of its own."""

import json
from decimal import Decimal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from loopd.protocol.contexts import HOSTS, KNOWN_CONTEXTS, context_url, vocabulary_iri
from loopd.protocol.documents import check_document, dump_json, read_json
from loopd.protocol.errors import Invalid
from loopd.protocol.limits import JSON_LD_MAX_BYTES, JSON_LD_MAX_CONTEXTS, JSON_LD_MAX_TERMS

VOCABULARY = vocabulary_iri()
OTHER_VOCABULARY = vocabulary_iri(HOSTS[1])
EXACT = Decimal("0.9500000000000000000000000000000000001")
MATERIAL = {
    "@context": context_url(),
    "@type": "MaterialDNA",
    "schema_version": "0.2.0",
    "id": "MAT-DE-MUC-2025-PLASTIC-B847F3",
    "category": "plastic-pet",
    "quantity": {"value": Decimal("1000.10"), "unit": "kg"},
    "quality": EXACT,
    "origin_city": "Munich",
    "current_city": "Munich",
    "location": {"lat": Decimal("48.1351"), "lon": Decimal("11.5820"), "address": "Recycling Center Munich"},
    "available_from": "2025-05-27T10:00:00Z",
    "certifications": ["food-grade"],
    "images": ["https://example.com/material-photo.jpg"],
    "metadata": {"batch_number": "2025-W22-01", "weights": [1, Decimal("2.50"), Decimal("1E+2")]},
    "conformity_claims": [{"claim_id": "c-1", "declared_value": {"value": Decimal("0.10")}, "conformance": True}],
}


def without(*names):
    return {key: value for key, value in MATERIAL.items() if key not in names}


def refusal_of(document, expected="MaterialDNA"):
    with pytest.raises(Invalid) as caught:
        check_document(document if isinstance(document, bytes) else dump_json(document), expected)
    return caught.value


@pytest.mark.parametrize("url", KNOWN_CONTEXTS)
def test_a_known_context_is_taken_as_it_stands(url):
    body = dump_json({**MATERIAL, "@context": url, "unlisted": {"@id": "x"}})
    document = check_document(body, frozenset({"MaterialDNA", "ProductDNA"}))
    assert (document.type, document.received) == ("MaterialDNA", body)
    assert document.value == {**MATERIAL, "@context": url, "unlisted": {"@id": "x"}}
    assert dump_json(document.value) == body


@pytest.mark.parametrize(
    ("document", "reason"),
    [
        (b"{", "not_json"),
        (b'{"@context": 1, "@context": 2}', "duplicate_key"),
        ({**without("id"), "@context": "https://example.org/a.jsonld", "x": "a@example.org"}, "unknown_context"),
        ({**without("id"), "x": "a@example.org"}, "schema"),
        ({**MATERIAL, "x": "a@example.org"}, "personal_data"),
    ],
)
def test_the_order_of_the_checks(document, reason):
    assert refusal_of(document).reason == reason


@pytest.mark.parametrize(
    "context",
    [
        "http://local-loop-io.github.io/projects/loop-protocol/contexts/loop-v0.2.0.jsonld",
        "https://local-loop-io.github.io/projects/loop-protocol/contexts/loop-v0.3.0.jsonld",
        "https://schema.org",
        "http://127.0.0.1:8080/context.jsonld",
        "http://169.254.169.254/latest/meta-data",
        "file:///etc/passwd",
        "loop-v0.2.0.jsonld",
        "",
        ["https://schema.org"],
        [context_url(), "http://10.0.0.1/"],
        [context_url(), {"a": {"@id": "urn:a", "@context": "http://10.0.0.1/"}}],
        {"@import": "http://10.0.0.1/", "a": {"@context": ["http://10.0.0.1/"]}},
        None,
    ],
)
def test_an_unknown_context_is_refused_with_the_known_ones(context):
    refusal = refusal_of({**MATERIAL, "@context": context})
    assert refusal.reason == "unknown_context"
    assert refusal.details["known"] == list(KNOWN_CONTEXTS)
    assert "10.0.0.1" not in json.dumps(refusal.envelope())


def test_a_context_is_needed():
    assert refusal_of(without("@context")).reason == "unknown_context"
    assert refusal_of({}).reason == "unknown_context"


def test_a_context_inside_a_document_is_known_too():
    assert refusal_of({**MATERIAL, "x": [{"@context": "http://10.0.0.1/"}]}).reason == "unknown_context"
    assert check_document(dump_json({**MATERIAL, "x": [{"@context": context_url()}]}), "MaterialDNA")


@pytest.mark.parametrize("body", [b"[]", b"1", b'"x"', b"null", b"[[]]", b"[{}]"])
def test_a_document_is_an_object(body):
    assert [error["pointer"] for error in refusal_of(body).details["errors"]] == [""]


@pytest.mark.parametrize(
    ("name", "rule"), [("Offer", "enum"), (7, "enum"), (["MaterialDNA"], "enum"), (..., "required")]
)
def test_the_type_is_one_that_is_expected(name, rule):
    document = without("@type") if name is ... else {**MATERIAL, "@type": name}
    refusal = refusal_of(document, frozenset({"MaterialDNA", "ProductDNA"}))
    message = "The value must be one of: MaterialDNA, ProductDNA."
    assert refusal.details["errors"] == [{"pointer": "/@type", "rule": rule, "message": message}]


def test_personal_data_is_told_by_its_place_alone():
    refusal = refusal_of({**MATERIAL, "metadata": {"notes": "Ask grace@example.org", "first_name": "Grace"}})
    assert refusal.reason == "personal_data"
    assert [error["pointer"] for error in refusal.details["errors"]] == ["/metadata/notes", "/metadata/first_name"]
    assert "grace" not in json.dumps(refusal.envelope()).lower()


# --- Other forms of JSON-LD -------------------------------------------------------------------------------------------


def renamed(names, context):
    return {"@context": context, **{names(key): value for key, value in without("@context").items()}}


def full_iri(vocabulary):
    return lambda key: {"id": "@id", "@type": "@type"}.get(key, vocabulary + key)


FORMS = {
    "an array of contexts": {**MATERIAL, "@context": [context_url()]},
    "the other host's older context": {**MATERIAL, "@context": [context_url(HOSTS[1], "0.1.1")]},
    "an inline vocabulary": {**MATERIAL, "@context": {"@vocab": VOCABULARY}},
    "the other host's vocabulary": {**MATERIAL, "@context": {"@vocab": OTHER_VOCABULARY, "id": "@id"}},
    "aliases": renamed(
        lambda key: {"quality": "güte", "@type": "type"}.get(key, key),
        [context_url(), {"güte": f"{VOCABULARY}quality", "type": "@type"}],
    ),
    "compact IRIs": renamed(
        lambda key: {"id": "@id", "@type": "@type"}.get(key, f"loop:{key}"),
        [context_url(), {"loop": VOCABULARY}],
    ),
    "full IRIs": renamed(full_iri(VOCABULARY), [context_url()]),
    "the other host's IRIs": renamed(full_iri(OTHER_VOCABULARY), [context_url()]),
    "a language": {**MATERIAL, "@context": [context_url(), {"@language": "de"}]},
    "typed values": {
        **MATERIAL,
        "@context": [context_url()],
        "quality": {"@value": EXACT},
        "available_from": {"@value": MATERIAL["available_from"]},
        "images": {"@id": MATERIAL["images"][0]},
    },
}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_another_form_is_the_same_document(form):
    body = dump_json(form)
    document = check_document(body, "MaterialDNA")
    assert document.value == MATERIAL
    assert document.received == body
    assert type(document.value["quality"]) is Decimal


@pytest.mark.parametrize("in_array", [True, False])
def test_the_expanded_form_needs_no_context(in_array):
    def expanded(value):
        if isinstance(value, dict):
            return [{VOCABULARY + key: expanded(item) for key, item in value.items()}]
        return [part for item in value for part in expanded(item)] if isinstance(value, list) else [{"@value": value}]

    fields = {VOCABULARY + key: expanded(value) for key, value in without("@context", "@type", "id").items()}
    node = {"@id": MATERIAL["id"], "@type": [f"{VOCABULARY}MaterialDNA"], **fields}
    assert check_document(dump_json([node] if in_array else node), "MaterialDNA").value == MATERIAL


def test_another_form_has_its_violations_told_in_the_protocol_s_terms():
    alias = renamed(lambda key: {"category": "kind"}.get(key, key), [context_url(), {"kind": f"{VOCABULARY}category"}])
    refusal = refusal_of({**alias, "kind": "grain", "quality": 2})
    assert {(error["pointer"], error["rule"]) for error in refusal.details["errors"]} == {
        ("/category", "enum"),
        ("/quality", "maximum"),
    }


def test_personal_data_does_not_hide_behind_a_context():
    aliased = {**MATERIAL, "@context": [context_url(), {"reach": f"{VOCABULARY}email"}], "reach": "x"}
    assert refusal_of(aliased).reason == "personal_data"
    dropped = {**MATERIAL, "@context": [context_url(), {"reach": None}], "reach": "ada@example.org"}
    assert refusal_of(dropped).details["errors"][0]["pointer"] == "/reach"


@pytest.mark.parametrize(
    "context",
    [
        7,
        [],
        [[context_url()]],
        {"@base": 7},
        {"@vocab": 1},
        {"@version": 9},
        {"a": {"@id": "urn:a", "@context": {}}},
        {"@import": context_url()},
        {"a": "b:c", "b": "a:c"},
        {"a": {"@container": "nowhere", "@id": "urn:a"}},
        [context_url()] * (JSON_LD_MAX_CONTEXTS + 1),
        {f"term{number}": "urn:a" for number in range(JSON_LD_MAX_TERMS + 1)},
    ],
)
def test_a_form_that_cannot_be_read_is_refused(context):
    refusal = refusal_of({**MATERIAL, "@context": context})
    assert refusal.reason in ("bad_json_ld", "schema")
    assert len(json.dumps(refusal.envelope())) < 5_000


def test_a_form_of_its_own_is_bounded_in_size():
    large = {**MATERIAL, "@context": [context_url()], "unlisted": "x" * JSON_LD_MAX_BYTES}
    assert refusal_of(large).reason == "bad_json_ld"
    assert check_document(dump_json({**large, "@context": context_url()}), "MaterialDNA")


contexts = st.recursive(
    st.sampled_from([None, True, 0, "", "@id", "@type", "@vocab", "a:b", VOCABULARY, context_url(), "urn:x"]),
    lambda children: (
        st.lists(children, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["@vocab", "@base", "@language", "@version", "@type", "@id", "id", "quality", "a", "@container"]
            ),
            children,
            max_size=4,
        )
    ),
    max_leaves=6,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(contexts)
def test_any_context_is_read_or_refused(context):
    body = dump_json({**MATERIAL, "@context": context})
    try:
        assert check_document(body, "MaterialDNA").type == "MaterialDNA"
    except Invalid as refusal:
        assert refusal.reason in ("unknown_context", "bad_json_ld", "schema")  # noqa: PT017 - either outcome is right


def test_numbers_come_through_untouched():
    document = check_document(dump_json({**MATERIAL, "@context": [context_url()]}), "MaterialDNA")
    assert read_json(dump_json(document.value)) == MATERIAL
    assert str(document.value["quantity"]["value"]) == "1000.10"
