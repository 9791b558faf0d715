"""The JSON-LD contexts of LOOP: four URLs are known, one is emitted, none is ever fetched."""

import json
from functools import cache
from typing import Any

from loopd.protocol.published_files import published_files

# The protocol moved hosts; nodes of both kinds exist, and both name the same vocabulary.
DEFAULT_HOST = "local-loop-io.github.io"
HOSTS: tuple[str, ...] = (DEFAULT_HOST, "localloop.urbnia.com")
CURRENT_VERSION = "0.2.0"
VERSIONS: tuple[str, ...] = ("0.1.1", CURRENT_VERSION)


def context_url(host: str = DEFAULT_HOST, version: str = CURRENT_VERSION) -> str:
    """The URL of a version's context on a host; the default is what this node emits."""
    return f"https://{host}/projects/loop-protocol/contexts/loop-v{version}.jsonld"


def vocabulary_iri(host: str = DEFAULT_HOST) -> str:
    """The IRI that every LOOP term begins with."""
    return f"https://{host}/projects/loop-protocol/terms/"


def schema_url(name: str, host: str = DEFAULT_HOST) -> str:
    """The id of a published schema such as `material-dna`."""
    return f"https://{host}/projects/loop-protocol/schemas/v{CURRENT_VERSION}/{name}.schema.json"


KNOWN_CONTEXTS: dict[str, str] = {context_url(host, version): version for version in VERSIONS for host in HOSTS}


@cache
def context_document(version: str) -> dict[str, Any]:
    """The bundled context of a version, as it is published: `{"@context": {...}}`. Not to be changed by the caller."""
    text = published_files("contexts").joinpath(f"loop-v{version}.jsonld").read_text("utf-8")
    document: dict[str, Any] = json.loads(text)
    return document
