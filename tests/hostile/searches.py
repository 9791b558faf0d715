"""Hostile searches: keys, numbers, places, times, words and cursors that nobody means well."""

from tests.hostile.stage import JSON, LD_JSON, Row
from tests.hostile.wire import request

SEARCH = "/api/v1/material/search"


def search(name: str, reason: str, body: str, status: int = 400, target: str = SEARCH) -> Row:
    return Row(name, status, reason, request("POST", target, JSON, body.encode()))


def cursor(name: str, value: str, reason: str = "bad_cursor") -> Row:
    return search(name, reason, "{}", target=f"{SEARCH}?cursor={value}")


ROWS = [
    search("a search that is a list", "schema", "[]"),
    search("a search for nothing at all", "schema", "null"),
    search("a key that there is not", "schema", '{"$where": "1"}'),
    search("a key that is a prototype", "schema", '{"__proto__": {}}'),
    search("a key named twice", "duplicate_key", '{"category": "*", "category": "*"}'),
    search("a search with a personal key", "schema", '{"email": "maria@example.org"}'),
    search("a category of SQL", "unknown_category", """{"category": "' OR 1=1 --"}"""),
    search("a category that stars too much", "unknown_category", '{"category": "**"}'),
    search("a category that is a pattern", "unknown_category", '{"category": "plastic-%"}'),
    search("a category of a product", "unknown_category", '{"category": "furniture-office"}'),
    search("a radius below nothing", "bad_radius", '{"radius_km": -0.000001}'),
    search("a radius beyond the earth", "bad_radius", '{"radius_km": 1e300}'),
    search("a radius of a text", "schema", '{"radius_km": "100"}'),
    search("a radius of nothing at all", "not_finite", '{"radius_km": NaN}'),
    search("a radius without end", "number_out_of_range", '{"radius_km": 1e999999999}'),
    search("a place off the earth", "bad_location", '{"near": {"lat": 90.0001, "lon": 0}}'),
    search("half a place", "schema", '{"near": {"lat": 48}}'),
    search("a place with an address", "schema", '{"near": {"lat": 48, "lon": 11, "address": "x"}}'),
    search("less than nothing", "bad_quantity", '{"min_quantity": -1}'),
    search("more than any unit holds", "bad_quantity", '{"min_quantity": 1e16, "unit": "g"}'),
    search("finer than a billionth", "bad_quantity", '{"min_quantity": 1e-10}'),
    search("a unit that there is not", "bad_quantity", '{"min_quantity": 1, "unit": "stone"}'),
    search("a time without a zone", "bad_time", '{"available_from": "2026-01-01T00:00:00"}'),
    search("a time in the year 10000", "bad_time", '{"available_until": "9999-12-31T23:59:59-23:59"}'),
    search("a cost of thousandths", "bad_amount", '{"max_loop_cost": 0.001}'),
    search("a cost below nothing", "bad_amount", '{"max_loop_cost": -1}'),
    search("a destination that is a path", "bad_destination", '{"destination": "../admin.loop"}'),
    search("a destination that nobody knows", "unknown_destination", '{"destination": "nobody.loop"}'),
    search("a scope that there is not", "bad_scope", '{"scope": "*"}'),
    search("words that are none", "bad_text", '{"text": "\\" * ( ) ^"}'),
    search("words with NUL", "nul_character", '{"text": "a\\u0000b"}'),
    search("words without end", "bad_text", f'{{"text": "{"a" * 5000}"}}'),
    search("a limit of nothing", "bad_limit", '{"limit": 0}'),
    search("a limit of all", "bad_limit", '{"limit": 1000000000}'),
    search("a limit of half", "bad_limit", '{"limit": 0.5}'),
    search("a search of 20 KiB", "payload_too_large", f'{{"text": "{"a" * 20_000}"}}', 413),
    Row("a search without a body", 400, "not_json", request("POST", SEARCH, LD_JSON)),
    search("a search with a page", "unknown_parameter", "{}", target=f"{SEARCH}?page=2"),
    cursor("a cursor of nothing", ""),
    cursor("a cursor of a number", "17"),
    cursor("a cursor that was made up", "A" * 64),
    cursor("a cursor that is too long", "A" * 65),
    cursor("a cursor in another script", "%C3%BC" * 32),
]
