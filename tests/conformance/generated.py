"""Documents made from the schemas: valid ones, and the same after an accident. All of a document follows from its seed.

The choices are made with `random`, not drawn one by one from Hypothesis: these schemas have a hundred fields each, and
Hypothesis would spend seconds on a document. It chooses the seed.
"""

import copy
import re
from decimal import Decimal
from random import Random
from typing import Any

from loopd.protocol.json_text import walk
from loopd.protocol.schemas import entity_schema

_FORMAT_EXAMPLES = {
    "date-time": ["2026-11-21T04:10:00Z", "2025-05-27T10:00:00.5+02:00", "1999-12-31T23:59:59.123456789-11:30"],
    "date": ["2026-11-21", "2024-02-29"],
    "uri": [
        "https://example.org/a?b=c#d",
        "urn:uuid:550e8400-e29b-41d4-a716-446655440000",
        "https://[2001:db8::1]:84/",
    ],
    "uuid": ["550e8400-e29b-41d4-a716-446655440000", "00000000-0000-0000-0000-000000000000"],
    "email": ["office@munich.example"],
}
_PATTERN_EXAMPLES = [
    "0.2.0", "0.1.1", "0.12.345", "MAT-DE-MUC-2025-FOOD-B847F3", "MAT-AT-VIE-0001-A-000000000", "PRD-DE-MUC-2025-D-1",
    "OFFER-001", "munich.loop", "a-1.loop", "user:maria@munich.loop", "node:clearing.b@munich.loop", "LC-MUC",
    "12345678", "0123456789", "123456", "7732-18-5", "1310-73-2", "15 01 02", "DE", "C11", "C11.05",
    "TXN-2025-05-27-001", "de", "1.20.300", "by_hand", "https://munich.example/api/v1", "0" * 64, "f" * 128,
    "WNT-0123456789ABCDEF", "plastic-*", "glass-clear",
    "-----BEGIN PUBLIC KEY-----\nAA\n-----END PUBLIC KEY-----",
]  # fmt: skip
_TEXTS = ["", "x", "Munich", "Größe", "a/b~c", "15 kg", "\u00a0", "ü" * 80, "😀 surplus"]
_JUNK = [
    None, True, False, 0, 1, -1, 4, 10**30, Decimal("-0.001"), Decimal("1.5"), Decimal("0.5000000000000000001"),
    Decimal("1.0000000000000000001"), 10**300, "", "x", "x" * 1000, "0.2.0", "1.0.0", "0.02.0",
    "munich.loop", "Munich.loop", "LC-MUC", "MAT-DE-MUC-2025-FOOD-B847F3", "PRD-DE-MUC", "2026-02-30",
    "2026-11-21T04:10:00", "2026-11-21T24:00:00Z", "2026-11-21", "example.org/a", "https://a b", "%zz:",
    "550e8400e29b41d4a716446655440000", "a@b", "12345678", [], [None], ["x"] * 25, {}, {"lat": 91, "lon": 0},
]  # fmt: skip


def valid_document(entity: str, seed: int) -> dict[str, Any]:
    """A valid document: some of its optional fields, and often one that nobody listed."""
    random = Random(seed)
    schema = entity_schema(entity)
    branches = [branch["required"] for branch in schema.get("anyOf", [{"required": []}])]
    document = _object(random, schema, random.choice(branches))
    if entity == "MaterialAnnouncement":
        _agree(random, document)
    return document


def broken_document(entity: str, seed: int) -> dict[str, Any]:
    """A valid document after one to three accidents. It may still hold: that is for the validators to say."""
    random = Random(seed)
    document = copy.deepcopy(valid_document(entity, seed))
    for _ in range(random.randint(1, 3)):
        containers = [item for _, item in walk(document) if isinstance(item, dict | list) and item]
        if not containers:
            break
        container = random.choice(containers)
        step = random.choice(list(container) if isinstance(container, dict) else range(len(container)))
        accident = random.choice(["replace", "remove", "add"])
        if accident == "replace":
            container[step] = copy.deepcopy(random.choice(_JUNK))
        elif accident == "remove":
            del container[step]
        elif isinstance(container, dict):
            name = random.choice(["contact", "extra", "quantity", "hop_anchor", "signals", "product"])
            container[name] = copy.deepcopy(random.choice(_JUNK))
    return document


def _agree(random: Random, announcement: dict[str, Any]) -> None:
    """What an announcement's fields ask of each other: one subject, its kind of category, an anchor's whole scope."""
    if "material" in announcement:
        announcement.pop("product", None)
    announcement["category"] = "plastic-pet" if "material" in announcement else "furniture-office"
    schema = entity_schema("MaterialAnnouncement")
    if "hop_anchor" in announcement:
        for name in schema["dependentRequired"]["hop_anchor"]:
            announcement.setdefault(name, _value(random, schema["properties"][name]))


def _object(random: Random, schema: dict[str, Any], also_required: list[str]) -> dict[str, Any]:
    if "propertyNames" in schema:
        names = random.sample(schema["propertyNames"]["enum"], 3)
        return {name: _value(random, schema["additionalProperties"]) for name in names}
    required = {*also_required, *schema.get("required", ())}
    share = random.random()
    result = {
        name: _value(random, field)
        for name, field in schema.get("properties", {}).items()
        if "not" not in field and (name in required or random.random() < share)
    }
    if schema.get("additionalProperties", True) is True and random.random() < share:
        result["unlisted"] = random.choice([1, "x", [None], {"a": Decimal("1.5")}])
    return result


def _value(random: Random, schema: dict[str, Any]) -> Any:
    if "const" in schema:
        return schema["const"]
    if "enum" in schema:
        return random.choice(schema["enum"])
    name = random.choice(schema["type"]) if isinstance(schema["type"], list) else schema["type"]
    if name == "object":
        return _object(random, schema, [])
    if name == "array":
        lowest, highest = schema.get("minItems", 0), schema.get("maxItems", 3)
        return [_value(random, schema["items"]) for _ in range(random.choice([lowest, 1, highest]))]
    if name == "string":
        return _string(random, schema)
    if name == "integer" or name == "number":
        return _number(random, schema, name)
    return random.random() < 0.5 if name == "boolean" else None


def _number(random: Random, schema: dict[str, Any], name: str) -> Any:
    lowest = schema.get("minimum", 1 if "exclusiveMinimum" in schema else -1000)
    highest = schema.get("maximum", 10**9)
    whole = random.randint(int(lowest) + (lowest > int(lowest)), int(highest))
    if name == "integer":
        return random.choice([lowest, highest, whole])
    between = (Decimal(lowest) + Decimal(highest)) / 2 + Decimal("0.0000000000000001")
    return random.choice([lowest, highest, between, min(highest, max(lowest, Decimal(str(random.random()))))])


def _string(random: Random, schema: dict[str, Any]) -> str:
    if "pattern" in schema:
        return random.choice([text for text in _PATTERN_EXAMPLES if re.search(schema["pattern"], text)])
    if "format" in schema:
        return random.choice(_FORMAT_EXAMPLES[schema["format"]])
    shortest, longest = schema.get("minLength", 0), schema.get("maxLength", 1000)
    return random.choice([*_TEXTS, "ß" * longest])[:longest].ljust(shortest, "x")
