"""Every row of the entity tables (`entity_fields.tsv`) against the schemas, and the schemas against the rows."""

import csv
import json
import re
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from loopd.protocol.contexts import DEFAULT_HOST, KNOWN_CONTEXTS, schema_url
from loopd.protocol.schemas import ENTITIES, ENTITIES_BY_FILE, entity_schema, schema_file
from loopd.protocol.vocabulary import MATERIAL_CATEGORIES, PRODUCT_CATEGORIES

with (Path(__file__).parent / "entity_fields.tsv").open(encoding="utf-8", newline="") as table:
    ROWS = list(csv.DictReader(table, delimiter="\t", quoting=csv.QUOTE_NONE))

CLOSED = {"NodeHandshake", "NodeHandshakeResponse", "FederateAcceptedResponse", "MirrorUpdate", "StatusRequest"} | {
    *(f"Settlement{message}" for message in ("Request", "Prepare", "Answer", "Decision", "Acknowledgement", "Inquiry")),
    *("NettingRefusal", "DischargeNotice", "DischargeAnswer"),
}
NAMED_SUBJECT = {
    **{entity: ["material_id", "product_id"] for entity in ("Offer", "Match", "Transfer")},
    **{entity: ["material", "product"] for entity in ("MaterialTransaction", "Settlement")},
    **{
        entity: ["material", "product"]
        for entity in ("MaterialAnnouncement", "MaterialOffer", "BidStatus", "BidWithdrawal", "SettlementRequest")
    },
    "LoopDemand": ["category", "product_category"],
}
# Between nodes that know products, `product` may stand for `material`; a settled sale names its accounts.
ADDED = {
    ("MaterialTransaction", "product"),
    ("MaterialTransaction", "seller_account"),
    ("MaterialTransaction", "buyer_account"),
    ("Settlement", "product"),
}
OWN_FILES = (
    "material-announcement",
    "material-offer",
    "bid-status",
    "bid-withdrawal",
    "mirror-update",
    "status-request",
    "settlement-messages",
    "netting-messages",
    "loop-demand",
    "key-rotation",
    "key-revocation",
    "product-status",
)
KEYWORDS = {
    "≥": "minimum", "≤": "maximum", ">": "exclusiveMinimum", "length ≥": "minLength", "length ≤": "maxLength",
    "items ≥": "minItems", "items ≤": "maxItems", "default": "default",
}  # fmt: skip


def field_schema(entity: str, field: str) -> tuple[dict[str, Any], dict[str, Any], str]:
    """The schema of the object that has the field, the field's own, and its name there."""
    owner = entity_schema(entity)
    *steps, name = field.split(".")
    for step in steps:
        owner = owner["properties"][step.removesuffix("[]")]
        if step.endswith("[]"):
            owner = owner["items"]
    return owner, owner["properties"][name], name


def expected_keywords(constraint: str) -> dict[str, Any]:
    """A constraint of the table in the keywords of JSON Schema; those of an array's items under `items`."""
    result: dict[str, Any] = {}
    for part in re.split(r"; (?=(?:[^`]*`[^`]*`)*[^`]*$)", constraint) if constraint else []:
        target = result
        if part.startswith("items: "):
            part = part.removeprefix("items: ")
            target = result.setdefault("items", {})
        words, _, last = part.rpartition(" ")
        quoted = re.findall(r"`([^`]*)`", part)
        if words in KEYWORDS:
            target[KEYWORDS[words]] = Decimal(last) if re.fullmatch(r"-?[\d.]+", last) else last
        elif part.startswith("exactly"):
            target["const"] = json.loads(quoted[0])
        elif part.startswith("pattern"):
            target["pattern"] = quoted[0]
        elif part.startswith("one of the 30"):
            target["enum"] = list(MATERIAL_CATEGORIES)
        elif part.startswith("one of the 17"):
            target["enum"] = list(PRODUCT_CATEGORIES)
        elif part.startswith("one of"):
            target["enum"] = quoted
        else:
            target["format"] = part
    return result


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row['entity']}.{row['field']}")
def test_the_schema_says_what_the_table_says(row):
    owner, schema, name = field_schema(row["entity"], row["field"])
    assert schema["description"].endswith(".")
    is_alternative = name in NAMED_SUBJECT.get(row["entity"], ()) and owner is entity_schema(row["entity"])
    assert (name in owner.get("required", ())) == (row["presence"] == "required" and not is_alternative)
    if row["type"] == "forbidden":
        assert schema["not"] == {}
        return
    told = {
        keyword: item for keyword, item in schema.items() if keyword not in ("description", "required", "properties")
    }
    types = told.pop("type")
    if row["type"].startswith("array of "):
        assert types == "array"
        items = {key: item for key, item in told.pop("items").items() if key not in ("required", "properties")}
        assert items.pop("type") == row["type"].removeprefix("array of ")
        told |= {"items": items} if items else {}
    else:
        assert types == (row["type"].split(" or ") if " or " in row["type"] else row["type"])
    if name == "@context":
        assert set(told.pop("enum")) == set(KNOWN_CONTEXTS)
    elif row["field"] == "signals":
        assert told.pop("propertyNames") == {"enum": [*MATERIAL_CATEGORIES, "default"]}
        assert told.pop("additionalProperties") == {"type": "number", "minimum": 0, "maximum": 1}
    elif (row["entity"], row["field"]) == ("MaterialAnnouncement", "category"):
        materials, products = (
            rule["then"]["properties"]["category"]["enum"] for rule in entity_schema(row["entity"])["allOf"]
        )
        assert (materials, products) == (list(MATERIAL_CATEGORIES), list(PRODUCT_CATEGORIES))
    else:
        assert told == expected_keywords(row["constraint"])


def paths(schema: dict[str, Any], prefix: str = "") -> list[str]:
    found = []
    for name, field in schema.get("properties", {}).items():
        found += [
            prefix + name,
            *paths(field, f"{prefix}{name}."),
            *paths(field.get("items", {}), f"{prefix}{name}[]."),
        ]
    return found


@pytest.mark.parametrize("entity", sorted(ENTITIES))
def test_the_schema_has_no_field_that_the_table_lacks(entity):
    told = {row["field"] for row in ROWS if row["entity"] == entity}
    assert set(paths(entity_schema(entity))) - told == {field for name, field in ADDED if name == entity}


@pytest.mark.parametrize("entity", sorted(ENTITIES))
def test_closed_entities_and_alternatives(entity):
    schema = entity_schema(entity)
    assert schema.get("additionalProperties", True) is (entity not in CLOSED)
    alternatives = [name for branch in schema.get("anyOf", ()) for name in branch["required"]]
    assert alternatives == NAMED_SUBJECT.get(entity, [])


@pytest.mark.parametrize("name", ENTITIES_BY_FILE)
def test_every_file_has_its_published_id_and_its_entities(name):
    schema = schema_file(name)
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    own = name in OWN_FILES
    assert schema["$id"] == (f"urn:loopd:schema:{name}" if own else schema_url(name, DEFAULT_HOST))
    entities = ENTITIES_BY_FILE[name]
    if len(entities) > 1:
        assert schema["properties"]["@type"]["enum"] == list(entities) == list(schema["$defs"])
        assert [rule["then"]["$ref"] for rule in schema["allOf"]] == [f"#/$defs/{entity}" for entity in entities]
    else:
        assert schema["title"] == entities[0]


def test_no_schema_file_is_left_over():
    directory = Path(__file__).parents[2] / "schemas"
    assert {path.name for path in directory.iterdir()} == {f"{name}.schema.json" for name in ENTITIES_BY_FILE}
