"""What a setting may be, in words, from its declaration: for messages and for the generated example."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import annotated_types
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from loopd.room_settings import RoomSettings
from loopd.settings.model import Settings

# How a nullable setting is switched off in a file and in the environment; TOML has no null.
NONE_WORD = "none"


class Kind(StrEnum):
    """How a value is written."""

    BOOLEAN = "boolean"
    INTEGER = "integer"
    NUMBER = "number"
    TEXT = "text"
    LIST = "list"
    TABLE = "table"


@dataclass(frozen=True, slots=True)
class Shape:
    """The type of a setting: how it is written, and which values are allowed, in words."""

    kind: Kind
    allowed: str
    nullable: bool = False
    item: "Shape | None" = None


@dataclass(frozen=True, slots=True)
class Setting:
    """One key: where it stands, what it does, what it may be."""

    section: str
    key: str
    description: str
    shape: Shape
    required: bool
    default: Any
    example: Any

    @property
    def name(self) -> str:
        """The dotted name, `federation.radius_km`."""
        return f"{self.section}.{self.key}"

    @property
    def variable(self) -> str:
        """The environment variable that overrides it."""
        return f"LOOPD_{self.section}__{self.key}".upper()


def sections() -> Mapping[str, type[RoomSettings]]:
    """Each section's name and class, in the order of the file."""
    found: dict[str, type[RoomSettings]] = {}
    for name, field in Settings.model_fields.items():
        section = field.annotation
        if not (isinstance(section, type) and issubclass(section, RoomSettings)):
            raise TypeError(f"the section {name} is no RoomSettings")
        found[name] = section
    return found


def settings_of(section: str, model: type[RoomSettings]) -> list[Setting]:
    """Every key of a section."""
    return [_setting(section, key, field) for key, field in model.model_fields.items()]


def all_settings() -> Mapping[tuple[str, str], Setting]:
    """Every key of every section, by (section, key)."""
    return {
        (setting.section, setting.key): setting
        for section, model in sections().items()
        for setting in settings_of(section, model)
    }


def _setting(section: str, key: str, field: FieldInfo) -> Setting:
    default = field.get_default(call_default_factory=True, validated_data={})
    required = default is PydanticUndefined
    return Setting(
        section=section,
        key=key,
        description=field.description or "",
        shape=shape_of(field.annotation, field.metadata),
        required=required,
        default=None if required else default,
        example=field.examples[0] if field.examples else None,
    )


def shape_of(annotation: Any, constraints: Sequence[Any] = ()) -> Shape:
    """The shape of a type as it stands in a declaration. TypeError for a type that no setting may have."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        inner, *extra = arguments
        return shape_of(inner, [*constraints, *_flat(extra)])
    if origin in (Union, UnionType):
        return _union_shape(arguments, constraints)
    if origin is Literal:
        return Shape(Kind.TEXT, _either([json.dumps(choice) for choice in arguments]))
    if origin in (tuple, list):
        item = shape_of(arguments[0])
        return Shape(Kind.LIST, f"list, each: {item.allowed}", item=item)
    if origin is dict:
        item = shape_of(arguments[1])
        return Shape(Kind.TABLE, f"table, each value: {item.allowed}", item=item)
    return _plain_shape(annotation, constraints)


def _plain_shape(annotation: Any, constraints: Sequence[Any]) -> Shape:
    if annotation is bool:
        return Shape(Kind.BOOLEAN, "true or false")
    if annotation is int:
        return Shape(Kind.INTEGER, " ".join(["integer", *_range(constraints)]))
    if annotation in (float, Decimal):
        return Shape(Kind.NUMBER, " ".join(["number", *_range(constraints)]))
    if annotation is str:
        return Shape(Kind.TEXT, " ".join(["text", *_length(constraints), *_pattern(constraints)]))
    if annotation is Path:
        return Shape(Kind.TEXT, "path of a file")
    if annotation in (IPv4Network, IPv6Network):
        return Shape(Kind.TEXT, "network such as 10.0.0.0/8 or fd00::/8")
    if isinstance(annotation, type) and issubclass(annotation, RoomSettings):
        keys = (f"{key} ({shape_of(field.annotation, field.metadata).allowed})"
                for key, field in annotation.model_fields.items())  # fmt: skip
        return Shape(Kind.TABLE, f"table with {' and '.join(keys)}")
    raise TypeError(f"no setting may have the type {annotation}")


def _union_shape(arguments: Sequence[Any], constraints: Sequence[Any]) -> Shape:
    shapes = [shape_of(argument, constraints) for argument in arguments if argument is not NoneType]
    kinds = {shape.kind for shape in shapes}
    if len(kinds) != 1:
        raise TypeError(f"a setting is written in one way only, not as {' or '.join(sorted(kinds))}")
    allowed = _either(list(dict.fromkeys(shape.allowed for shape in shapes)))
    if NoneType not in arguments:
        return Shape(shapes[0].kind, allowed, item=shapes[0].item)
    return Shape(shapes[0].kind, f'{allowed}, or "{NONE_WORD}"', nullable=True, item=shapes[0].item)


def _flat(metadata: Sequence[Any]) -> list[Any]:
    return [part for entry in metadata for part in (entry.metadata if isinstance(entry, FieldInfo) else [entry])]


def _range(constraints: Sequence[Any]) -> list[str]:
    low: Any = None
    high: Any = None
    above = below = False
    for constraint in constraints:
        match constraint:
            case annotated_types.Ge(ge=bound):
                low, above = bound, False
            case annotated_types.Gt(gt=bound):
                low, above = bound, True
            case annotated_types.Le(le=bound):
                high, below = bound, False
            case annotated_types.Lt(lt=bound):
                high, below = bound, True
            case _:
                pass  # says nothing about the range
    words = []
    if low is not None:
        words.append(f"above {low}" if above else f"from {low}")
    if high is not None:
        words.append(f"below {high}" if below else f"to {high}")
    return words


def _length(constraints: Sequence[Any]) -> list[str]:
    low = high = None
    for constraint in constraints:
        if isinstance(constraint, annotated_types.MinLen):
            low = constraint.min_length
        elif isinstance(constraint, annotated_types.MaxLen):
            high = constraint.max_length
    if high is None:
        return []
    return [f"of {low} to {high} characters" if low else f"of at most {high} characters"]


def _pattern(constraints: Sequence[Any]) -> list[str]:
    # pydantic keeps a pattern in an entry of its own kind, which has no public class.
    patterns = [pattern for constraint in constraints if (pattern := getattr(constraint, "pattern", None))]
    return [f"matching {pattern}" for pattern in patterns]


def _either(words: Sequence[str]) -> str:
    if len(words) == 1:
        return words[0]
    return ", ".join(words[:-1]) + " or " + words[-1]
