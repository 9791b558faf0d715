"""Sections of the search index: one number for a scope, a kind and a category, so that one range holds a wildcard.

The numbers are stored. A vocabulary that grows shifts them, and takes a migration that numbers anew.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from loopd.protocol.subjects import SubjectKind
from loopd.protocol.vocabulary import MATERIAL_CATEGORIES, PRODUCT_CATEGORIES, category_matches

# In order, so that the categories of a common prefix stand together.
_CATEGORIES: Final[Mapping[SubjectKind, Sequence[str]]] = {
    SubjectKind.MATERIAL: sorted(MATERIAL_CATEGORIES),
    SubjectKind.PRODUCT: sorted(PRODUCT_CATEGORIES),
}
_BLOCK: Final = 1_000


class SearchScope(StrEnum):
    """Where is searched: what this city registered, or what other cities announced."""

    LOCAL = "local"
    FEDERATION = "federation"


@dataclass(frozen=True, slots=True)
class Sections:
    """A run of sections, both ends included."""

    first: int
    last: int


def section_of(scope: SearchScope, kind: SubjectKind, category: str | None) -> int:
    """The section of one category; what was announced without one, or with one unknown here, stands before them."""
    categories = _CATEGORIES[kind]
    return _block(scope, kind) + (categories.index(category) + 1 if category in categories else 0)


def category_of(section: int) -> str | None:
    """The category of a section, None for the one of unknown categories."""
    kind = _KINDS[section // _BLOCK % len(_KINDS)]
    position = section % _BLOCK
    return _CATEGORIES[kind][position - 1] if position else None


def sections_of(scope: SearchScope, kind: SubjectKind, pattern: str | None) -> Sections:
    """The sections of a category, of a prefix with a final `*`, or of all (None, and `*`).

    ValueError where no category of the kind fits.
    """
    block, categories = _block(scope, kind), _CATEGORIES[kind]
    if pattern is None or pattern == "*":
        return Sections(block, block + len(categories))
    fitting = [position for position, category in enumerate(categories, 1) if category_matches(category, pattern)]
    if not fitting:
        raise ValueError("no category fits")
    return Sections(block + fitting[0], block + fitting[-1])


_SCOPES: Final = tuple(SearchScope)
_KINDS: Final = tuple(SubjectKind)


def _block(scope: SearchScope, kind: SubjectKind) -> int:
    return (_SCOPES.index(scope) * len(_KINDS) + _KINDS.index(kind)) * _BLOCK
