"""The query string against what a route declares: nothing undeclared, nothing twice, everything typed."""

from collections.abc import Mapping, Sequence

from loopd.api.requests import decode_component
from loopd.api.routes import QueryParameter
from loopd.protocol.errors import Invalid
from loopd.protocol.limits import QUERY_MAX_PARAMETERS

_NO_QUERY: Mapping[str, int | str | None] = {}


def parse_query(query_string: str, declared: Sequence[QueryParameter]) -> Mapping[str, int | str | None]:
    """Every declared parameter with its value, its default or None.

    Invalid with `unknown_parameter`, `repeated_parameter`, `bad_query`, or the parameter's own reason.
    """
    if not query_string:
        return {parameter.name: parameter.default for parameter in declared} if declared else _NO_QUERY
    by_name = {parameter.name: parameter for parameter in declared}
    sent: dict[str, int | str | None] = {}
    parts = query_string.split("&")
    if len(parts) > QUERY_MAX_PARAMETERS:
        raise Invalid("bad_query", f"A query has at most {QUERY_MAX_PARAMETERS} parameters.")
    for part in parts:
        raw_name, _, raw_value = part.partition("=")
        name = decode_component(raw_name, plus_is_space=True)
        value = decode_component(raw_value, plus_is_space=True)
        if name is None or value is None:
            raise Invalid("bad_query", "The query string is not printable text in percent-encoded UTF-8.")
        if name not in by_name:
            message = "There is no such parameter here."
            raise Invalid("unknown_parameter", message, {"known": sorted(by_name)})
        if name in sent:
            raise Invalid("repeated_parameter", f"{name} is given more than once.", {"parameter": name})
        sent[name] = _typed(by_name[name], value)
    return {parameter.name: sent.get(parameter.name, parameter.default) for parameter in declared}


def _typed(parameter: QueryParameter, value: str) -> int | str:
    details: dict[str, object] = {"parameter": parameter.name}
    if parameter.kind is int:
        details |= {"minimum": parameter.minimum, "maximum": parameter.maximum}
        # Eighteen digits stay inside what the database counts in.
        digits = value[1:] if value.startswith("-") else value
        if digits.isascii() and digits.isdigit() and len(digits) <= 18:
            number = int(value)
            above = parameter.minimum is None or number >= parameter.minimum
            below = parameter.maximum is None or number <= parameter.maximum
            if above and below:
                return number
        raise Invalid(parameter.reason, f"{parameter.name} must be {_range(parameter)}.", details)
    if parameter.choices and value not in parameter.choices:
        details["allowed"] = list(parameter.choices)
        raise Invalid(parameter.reason, f"{parameter.name} must be one of the allowed values.", details)
    if not 0 < len(value) <= parameter.max_characters:
        message = f"{parameter.name} must have 1 to {parameter.max_characters} characters."
        raise Invalid(parameter.reason, message, details)
    return value


def _range(parameter: QueryParameter) -> str:
    if parameter.minimum is not None and parameter.maximum is not None:
        return f"a whole number from {parameter.minimum} to {parameter.maximum}"
    if parameter.minimum is not None:
        return f"a whole number of at least {parameter.minimum}"
    return "a whole number"
