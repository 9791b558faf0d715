"""Which line of a TOML file a setting stands on, which `tomllib` does not tell.

The file was already parsed by `tomllib`, so this needs to find keys only, not to judge them. Where a form is too odd
for it (a key inside an inline table), the line of what encloses it is given.
"""

import re
from collections.abc import Mapping

Path = tuple[str, ...]

_HEADER = re.compile(r"\s*\[\[?\s*(?P<path>[^\]]+?)\s*\]\]?\s*(#.*)?")
_KEY_PART = r"""(?:[A-Za-z0-9_-]+|"(?:[^"\\]|\\.)*"|'[^']*')"""
_ASSIGNMENT = re.compile(rf"\s*(?P<path>{_KEY_PART}(?:\s*\.\s*{_KEY_PART})*)\s*=")
_PART = re.compile(_KEY_PART)
# What decides where a value ends: strings (which hide brackets), comments, brackets.
_TOKEN = re.compile(r'"""|\'\'\'|"(?:[^"\\]|\\.)*"|\'[^\']*\'|#.*|[\[\]{}]')


def locate_keys(text: str) -> Mapping[Path, int]:
    """The line (from 1) of each table header and each key, by its full path."""
    lines: dict[Path, int] = {}
    table: Path = ()
    value = _Value()
    for number, line in enumerate(text.splitlines(), start=1):
        if value.open:
            value.feed(line)
            continue
        if header := _HEADER.fullmatch(line):
            table = _parts(header["path"])
            lines.setdefault(table, number)
        elif assignment := _ASSIGNMENT.match(line):
            path = table + _parts(assignment["path"])
            for length in range(len(table) + 1, len(path) + 1):
                lines.setdefault(path[:length], number)
            value.feed(line[assignment.end() :])
    return lines


def line_of(lines: Mapping[Path, int], path: Path) -> int:
    """The line of the setting, else of the nearest table around it, else 1."""
    for length in range(len(path), 0, -1):
        if path[:length] in lines:
            return lines[path[:length]]
    return 1


def _parts(dotted: str) -> Path:
    return tuple(part.strip("\"'") for part in _PART.findall(dotted))


class _Value:
    """Follows a value over the lines until its last bracket or triple quote is closed."""

    def __init__(self) -> None:
        self._depth = 0
        self._quote: str | None = None

    @property
    def open(self) -> bool:
        return self._depth > 0 or self._quote is not None

    def feed(self, line: str) -> None:
        position = 0
        while position < len(line):
            if self._quote is not None:
                end = line.find(self._quote, position)
                if end < 0:
                    return
                position, self._quote = end + 3, None
                continue
            token = _TOKEN.search(line, position)
            if token is None:
                return
            position = token.end()
            match token.group():
                case '"""' | "'''" as quote:
                    self._quote = quote
                case "[" | "{":
                    self._depth += 1
                case "]" | "}":
                    self._depth -= 1
                case _:
                    pass  # a string or a comment, whose brackets count for nothing
