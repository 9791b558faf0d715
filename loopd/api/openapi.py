"""The OpenAPI 3.1 description of a listener, made from the routes it serves and the entities' schemas."""

from collections.abc import Iterable, Mapping, Sequence
from http import HTTPStatus
from typing import Any, Final

from loopd.api.requests import decode_component
from loopd.api.routes import Access, Body, Route, SchemaReference, Scope, refusals_of
from loopd.protocol.errors import ErrorCode
from loopd.protocol.limits import IDEMPOTENCY_KEY_MAX_CHARACTERS

Schemas = Mapping[str, Mapping[str, Any]]

ERROR_SCHEMA: Final[Mapping[str, Any]] = {
    "description": "The error envelope of §8.3. `details.reason` is the machine's word for what is wrong.",
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["code", "message", "details"],
            "properties": {
                "code": {"enum": [code.value for code in ErrorCode]},
                "message": {"type": "string"},
                "details": {"type": "object", "required": ["reason"], "properties": {"reason": {"type": "string"}}},
            },
        }
    },
}

_SECURITY_SCHEMES: Final[Mapping[str, Any]] = {
    "token": {
        "type": "http",
        "scheme": "bearer",
        "description": "A token of the operator's making, with scopes; `admin` implies every other.",
    },
    "node": {
        "type": "apiKey",
        "in": "header",
        "name": "X-Node-Signature",
        "description": "A node's Ed25519 signature with X-Node-ID and X-Timestamp (§9.2).",
    },
}


def entity_schemas(documents: Iterable[Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """Entities' schemas by their names, from the schema files' contents: a file holds one, or several under `$defs`."""
    found: dict[str, Mapping[str, Any]] = {}
    for document in documents:
        found.update(document.get("$defs") or {document["title"]: document})
    return found


def openapi_document(
    routes: Sequence[Route], schemas: Schemas, *, title: str, version: str, server_url: str = "/"
) -> dict[str, Any]:
    """The whole description. ValueError where a route names a schema that is not among `schemas`."""
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route)
    names = _needed_schemas(routes, schemas)
    components = {name: _component(name, schemas[name], schemas) for name in names}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": title,
            "version": version,
            "description": "A node of the LOOP protocol: Local Optimization with Overflow Protocol.",
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": server_url}],
        "tags": [{"name": noun} for noun in nouns_of(routes)],
        "paths": paths,
        "components": {
            "schemas": {**components, "Error": ERROR_SCHEMA},
            "securitySchemes": _SECURITY_SCHEMES,
        },
    }


def nouns_of(routes: Iterable[Route]) -> list[str]:
    """The nouns in the order of their first routes."""
    return list(dict.fromkeys(route.noun for route in routes))


def _operation(route: Route) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": operation_id(route),
        "tags": [route.noun],
        "summary": route.summary,
        "parameters": _parameters(route),
        "responses": _responses(route),
        "security": _security(route),
    }
    if route.description:
        operation["description"] = route.description
    if route.body is not Body.NONE:
        content = {"schema": _reference(route.request_schema)}
        operation["requestBody"] = {
            "required": route.body is Body.REQUIRED,
            "content": {"application/ld+json": content, "application/json": content},
        }
    return {name: value for name, value in operation.items() if value != [] or name == "security"}


def operation_id(route: Route) -> str:
    """A stable name for client generators: `post_material_id_announce`."""
    words = [route.method.lower()]
    for part in route.path.split("/"):
        word = part.strip("{}").replace("-", "_").replace(".", "_")
        if word and word not in ("api", "v1"):
            words.append(word)
    return "_".join(words)


def _security(route: Route) -> list[dict[str, list[str]]]:
    if isinstance(route.access, Scope):
        return [{"token": [route.access.value]}]
    if route.token_shows_more:
        return [{}, {"token": []}]
    return [{"node": []}] if route.access is Access.NODE else []


def _parameters(route: Route) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
        for name in route.parameter_names
    ]
    for parameter in route.query:
        description = {"name": parameter.name, "in": "query", "description": parameter.description}
        found.append({**description, "schema": parameter.schema()})
    if route.takes_idempotency_key:
        bounds = {"type": "string", "minLength": 1, "maxLength": IDEMPOTENCY_KEY_MAX_CHARACTERS}
        text = "A repeat with the same key has no second effect and gets the first answer, for a day."
        pattern = {**bounds, "pattern": "^[\\x21-\\x7e]+$"}
        found.append({"name": "Idempotency-Key", "in": "header", "description": text, "schema": pattern})
    if route.access is Access.NODE:
        for name in ("X-Node-ID", "X-Timestamp"):
            found.append({"name": name, "in": "header", "required": True, "schema": {"type": "string"}})
    return found


def _responses(route: Route) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for status, success in sorted(route.successes.items()):
        found[str(status)] = {"description": success.description}
        if success.schema is not None:
            found[str(status)]["content"] = {success.content_type: {"schema": _reference(success.schema)}}
        elif status != 204:
            found[str(status)]["content"] = {success.content_type: {}}
    error = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
    for status, reasons in refusals_of(route).items():
        text = f"{HTTPStatus(status).phrase}: {', '.join(f'`{reason}`' for reason in reasons)}"
        found[str(status)] = {"description": text, "content": error}
    return found


def _reference(schema: SchemaReference | None) -> dict[str, Any]:
    if schema is None:
        return {}
    return {"$ref": f"#/components/schemas/{schema}"} if isinstance(schema, str) else dict(schema)


def _needed_schemas(routes: Sequence[Route], schemas: Schemas) -> list[str]:
    waiting = [name for route in routes for name in _names_in(route)]
    found: dict[str, None] = {}
    while waiting:
        name = waiting.pop(0)
        if name in found or name == "Error":
            continue
        if name not in schemas:
            raise ValueError(f"a route names the schema {name}, which there is not")
        found[name] = None
        waiting.extend(_component_names(_rewritten(schemas[name], name, schemas)))
    return sorted(found)


def _names_in(route: Route) -> list[str]:
    named = [route.request_schema, *(success.schema for success in route.successes.values())]
    found = [schema for schema in named if isinstance(schema, str)]
    for schema in named:
        if isinstance(schema, Mapping):
            found.extend(_component_names(schema))
    return found


def _component(name: str, schema: Mapping[str, Any], schemas: Schemas) -> Any:
    rewritten = _rewritten(schema, name, schemas)
    # Inside one description a schema is found by its place; an $id would make its references point elsewhere.
    return {key: value for key, value in rewritten.items() if key not in ("$id", "$schema")}


def _rewritten(value: Any, name: str, schemas: Schemas) -> Any:
    if isinstance(value, Mapping):
        return {
            key: _component_pointer(inner, name, schemas)
            if key == "$ref" and isinstance(inner, str)
            else _rewritten(inner, name, schemas)
            for key, inner in value.items()
        }
    if isinstance(value, list | tuple):
        return [_rewritten(inner, name, schemas) for inner in value]
    return value


def _component_pointer(reference: str, name: str, schemas: Schemas) -> str:
    """Where a reference inside the schema `name` stands in the whole description."""
    if reference.startswith("#/components/"):
        return reference
    document, _, fragment = reference.partition("#")
    if document:
        raise ValueError(f"the schema {name} refers to another file: {reference}")
    if fragment.startswith("/$defs/"):
        entity = fragment.split("/")[2]
        if entity not in schemas[name].get("$defs", {}) and entity in schemas:
            name, fragment = entity, fragment.removeprefix(f"/$defs/{entity}")
    return f"#/components/schemas/{name}{fragment}"


def _component_names(value: Any) -> list[str]:
    found: list[str] = []
    if isinstance(value, Mapping):
        reference = value.get("$ref")
        if isinstance(reference, str) and reference.startswith("#/components/schemas/"):
            found.append(decode_component(reference.split("/")[3]) or "")
        for inner in value.values():
            found.extend(_component_names(inner))
    elif isinstance(value, list | tuple):
        for inner in value:
            found.extend(_component_names(inner))
    return found
