"""Requests that are no LOOP documents: JSON objects of the form that their route describes."""

from collections.abc import Mapping
from typing import Any

from loopd.protocol.errors import Invalid
from loopd.protocol.json_text import read_json
from loopd.protocol.schemas import CompiledSchema


class RequestForm:
    """The form of a request's body. `schema` is what the route shows of it; it describes an object."""

    def __init__(self, schema: Mapping[str, Any]) -> None:
        self.schema = schema
        self._compiled = CompiledSchema(schema)

    def read(self, body: bytes) -> dict[str, Any]:
        """The object; an empty body is an empty one.

        Invalid (400): the reasons of `read_json`, or `schema` with every violation's place in `details.errors`.
        """
        value = read_json(body) if body else {}
        violations = self._compiled.errors(value)
        if violations:
            errors = [violation.as_json() for violation in violations]
            raise Invalid("schema", "The request is not as described; see details.errors.", {"errors": errors})
        if not isinstance(value, dict):
            raise TypeError("the form of a request describes an object")
        return value
