"""From a method and a path to a route. Paths are compared as they were sent; only parameters are decoded."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from loopd.api.requests import decode_component
from loopd.api.routes import Route
from loopd.protocol.errors import NotFound
from loopd.protocol.limits import PATH_ID_MAX_CHARACTERS

_NO_PARAMETERS: Mapping[str, str] = {}


class MethodNotAllowed(Exception):
    """The path exists, the method does not; `allowed` is what it has."""

    def __init__(self, allowed: tuple[str, ...]) -> None:
        super().__init__(", ".join(allowed))
        self.allowed = allowed


@dataclass(slots=True)
class _Node:
    # method -> the route and the names of its path's parameters
    routes: dict[str, tuple[Route, tuple[str, ...]]] = field(default_factory=dict)
    fixed: dict[str, "_Node"] = field(default_factory=dict)
    parameter: "_Node | None" = None

    def allowed(self) -> tuple[str, ...]:
        methods = {*self.routes, "OPTIONS"}
        if "GET" in methods:
            methods.add("HEAD")
        return tuple(sorted(methods))


class RouteTable:
    """All routes of one listener, as a tree of path segments. Where a fixed segment fits, no parameter is tried."""

    def __init__(self, routes: Iterable[Route]) -> None:
        self._root = _Node()
        for route in routes:
            node = self._root
            for segment in route.path[1:].split("/"):
                if segment.startswith("{"):
                    node.parameter = node.parameter or _Node()
                    node = node.parameter
                else:
                    node = node.fixed.setdefault(segment, _Node())
            if route.method in node.routes:
                raise ValueError(f"{route.key} is declared twice")
            node.routes[route.method] = (route, route.parameter_names)

    def find(self, method: str, path: str) -> tuple[Route, Mapping[str, str]]:
        """The route and its decoded parameters. NotFound `unknown_path` or `not_found`, or MethodNotAllowed."""
        node: _Node | None = self._root
        values: list[str] = []
        for segment in path[1:].split("/"):
            if node is None:
                break
            following = node.fixed.get(segment)
            if following is None and segment:
                following = node.parameter
                values.append(segment)
            node = following
        if node is None or not node.routes:
            raise NotFound("unknown_path", "There is nothing at this path; /docs lists what there is.")
        found = node.routes.get("GET" if method == "HEAD" else method)
        if found is None:
            raise MethodNotAllowed(node.allowed())
        route, names = found
        if not values:
            return route, _NO_PARAMETERS
        return route, {name: _decode_id(value) for name, value in zip(names, values, strict=True)}


def _decode_id(text: str) -> str:
    # Nothing here is named with a slash, a control character or a name that long, so there is no such thing.
    decoded = decode_component(text)
    if decoded is None or "/" in decoded or len(decoded) > PATH_ID_MAX_CHARACTERS:
        raise NotFound("not_found", "There is nothing with such an id.")
    return decoded
