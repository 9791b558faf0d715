"""JSON-LD in other forms than the published one: expanded with pyld, compacted to the v0.2.0 context.

No context is ever fetched: the four known URLs are answered from the bundled files, any other is refused. The work is
bounded before the processor sees the document.
"""

from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

from pyld import jsonld

from loopd.protocol.contexts import (
    CURRENT_VERSION,
    DEFAULT_HOST,
    HOSTS,
    KNOWN_CONTEXTS,
    context_document,
    context_url,
    vocabulary_iri,
)
from loopd.protocol.errors import Invalid
from loopd.protocol.json_text import walk
from loopd.protocol.limits import JSON_LD_MAX_BYTES, JSON_LD_MAX_CONTEXTS, JSON_LD_MAX_TERMS

# Relative identifiers, as all of LOOP's are, are resolved against this and cut off from it again.
_BASE = "https://relative.invalid/"
_VOCABULARY = vocabulary_iri()
_ID = f"{_VOCABULARY}id"
_OTHER_VOCABULARIES = tuple(vocabulary_iri(host) for host in HOSTS if host != DEFAULT_HOST)


def unknown_context() -> Invalid:
    """The refusal of a context that is not one of the four, or of a document without any."""
    known = list(KNOWN_CONTEXTS)
    return Invalid("unknown_context", "The document needs one of the known LOOP contexts.", {"known": known})


def check_context_urls(value: Any) -> None:
    """Refuses as `unknown_context` a document that names a context outside the known four, at any depth."""
    for context in _contexts(value):
        if any(isinstance(part, str) and part not in KNOWN_CONTEXTS for part in _parts(context)):
            raise unknown_context()


def is_expanded(value: Any) -> bool:
    """Whether a document is in expanded form: no context, but types that are IRIs of the LOOP vocabulary."""
    if isinstance(value, list):
        return len(value) == 1 and isinstance(value[0], dict) and is_expanded(value[0])
    if not isinstance(value, dict) or "@context" in value:
        return False
    types = value.get("@type")
    names = types if isinstance(types, list) else [types]
    return any(isinstance(name, str) and name.startswith((_VOCABULARY, *_OTHER_VOCABULARIES)) for name in names)


def compact(value: Any, size_bytes: int) -> dict[str, Any]:
    """The document as it reads under the v0.2.0 context alone, its numbers untouched, languages left out.

    Refused as `Invalid`: `unknown_context`, or `bad_json_ld` where the form is wrong or asks for too much work.
    An array of one comes back as its only member; `documents` restores it from the schema.
    """
    if size_bytes > JSON_LD_MAX_BYTES:
        raise _bad(f"A document in a JSON-LD form of its own has at most {JSON_LD_MAX_BYTES} bytes.")
    check_context_urls(value)
    _check_work(value)
    try:
        expanded = jsonld.expand(value, {"base": _BASE, "documentLoader": _load, "processingMode": "json-ld-1.1"})
        if len(expanded) != 1:
            raise _bad("The document holds not one node but several, or none.")
        node = _as_loop(expanded[0])
        options = {"base": _BASE, "documentLoader": _load, "skipExpansion": True}
        result: dict[str, Any] = jsonld.compact(node, context_document(CURRENT_VERSION), options)
    # pyld meets hostile input with more than its own error.
    except (jsonld.JsonLdError, ValueError, TypeError, KeyError, AttributeError, IndexError, RecursionError):
        raise _bad("The document is not JSON-LD that a LOOP context can express.") from None
    return {**result, "@context": context_url()}


def _bad(message: str) -> Invalid:
    return Invalid("bad_json_ld", message)


def _load(url: str, _: Mapping[str, Any]) -> dict[str, Any]:
    version = KNOWN_CONTEXTS.get(url)
    if version is None:
        raise unknown_context()
    return {
        "contentType": "application/ld+json",
        "contextUrl": None,
        "documentUrl": url,
        "document": context_document(version),
    }


def _contexts(value: Any) -> Iterator[Any]:
    for _, item in walk(value):
        if isinstance(item, dict) and "@context" in item:
            yield item["@context"]


def _parts(context: Any) -> list[Any]:
    return context if isinstance(context, list) else [context]


def _check_work(value: Any) -> None:
    """Counts what the processor would build: each context anew wherever it is named, each term inside it."""
    contexts = [part for context in _contexts(value) for part in _parts(context)]
    inline = [part for part in contexts if isinstance(part, dict)]
    if len(contexts) > JSON_LD_MAX_CONTEXTS or sum(map(len, inline)) > JSON_LD_MAX_TERMS:
        raise _bad(f"At most {JSON_LD_MAX_CONTEXTS} contexts with {JSON_LD_MAX_TERMS} terms of their own are read.")
    for part in inline:
        definitions = [definition for definition in part.values() if isinstance(definition, dict)]
        # These are applied again for each value they govern, so that few bytes ask for much work.
        if "@import" in part or any("@context" in definition for definition in definitions):
            raise _bad("A context has no terms with a context of their own, and imports none.")


@cache
def _coercions() -> Mapping[str, str]:
    """The type that the v0.2.0 context gives to the values of a term, by the term's IRI."""
    terms = context_document(CURRENT_VERSION)["@context"].values()
    return {term["@id"]: term["@type"] for term in terms if isinstance(term, dict)}


def _as_loop(node: Any, coercion: str | None = None) -> Any:
    """An expanded value in the terms of LOOP: one vocabulary, relative identifiers, each value typed as its term."""
    if isinstance(node, list):
        return [_as_loop(item, coercion) for item in node]
    if isinstance(node, str):
        return _one_vocabulary(node)
    if not isinstance(node, dict):
        return node
    if "@value" in node:
        return _typed_value(node, coercion)
    result: dict[str, Any] = {}
    for key, item in node.items():
        name = _one_vocabulary(key)
        if key == "@id" and isinstance(item, str):
            result[key] = item.removeprefix(_BASE)
        elif name == _ID and _is_single_text(item):
            # Under a bare `@vocab` the key `id` reads as a term of its own; LOOP has none but the identifier.
            result["@id"] = item[0]["@value"]
        else:
            result[name] = _as_loop(item, _coercions().get(name))
    return result


def _is_single_text(values: Any) -> bool:
    return isinstance(values, list) and len(values) == 1 and isinstance(values[0].get("@value"), str)


def _one_vocabulary(iri: str) -> str:
    for vocabulary in _OTHER_VOCABULARIES:
        if iri.startswith(vocabulary):
            return _VOCABULARY + iri.removeprefix(vocabulary)
    return iri


def _typed_value(node: dict[str, Any], coercion: str | None) -> dict[str, Any]:
    value = node["@value"]
    if node.get("@type") == "@json" or not isinstance(value, str) or coercion is None:
        # A type is only kept where compaction needs it to find the term.
        return {"@value": value}
    if coercion == "@id":
        return {"@id": value}
    return {"@value": value, "@type": coercion}
