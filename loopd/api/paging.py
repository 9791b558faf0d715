"""What lists that go on have in common: the cursor, and the path of the page that follows."""

from collections.abc import Mapping, Sequence
from typing import Any, Final
from urllib.parse import urlencode

from loopd.api.requests import Request
from loopd.api.routes import QueryParameter, SchemaReference

CURSOR: Final = QueryParameter(
    name="cursor",
    description="Where the page begins; taken from `next` of the page before.",
    kind=int,
    minimum=1,
    reason="bad_cursor",
)


def cursor_of(request: Request) -> int | None:
    """The request's cursor, None for the first page."""
    return None if request.query["cursor"] is None else request.integer("cursor")


def following_path(request: Request, path: str, cursor: int | None, filters: Sequence[str] = ()) -> str | None:
    """The path of the page that begins at `cursor`, with the same filters; None after the last page."""
    if cursor is None:
        return None
    chosen = {name: request.text(name) for name in filters}
    query = {"limit": request.limit, "cursor": cursor, **{name: text for name, text in chosen.items() if text}}
    return f"{path}?{urlencode(query)}"


def page_schema(entry: SchemaReference) -> Mapping[str, Any]:
    """A page's schema: `results`, each an entity by its name or of a schema of its own, and `next`."""
    item = {"$ref": f"#/components/schemas/{entry}"} if isinstance(entry, str) else entry
    return {
        "type": "object",
        "required": ["results", "next"],
        "properties": {"results": {"type": "array", "items": item}, "next": {"type": ["string", "null"]}},
    }
