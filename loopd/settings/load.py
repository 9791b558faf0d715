"""Reads `loopd.toml` and the environment, and tells everything that is wrong with them at once."""

import difflib
import json
import math
import os
import re
import sys
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date, time
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from loopd.settings.describe import NONE_WORD, Kind, Setting, Shape, all_settings
from loopd.settings.locate import line_of, locate_keys
from loopd.settings.model import Settings, contradictions
from loopd.settings.problems import Problem, SettingsError

SETTINGS_FILE_NAME = "loopd.toml"
SETTINGS_FILE_MAX_BYTES = 1024 * 1024
VARIABLE_PREFIX = "LOOPD_"
# Read by the operator's commands, not settings of the daemon.
COMMAND_VARIABLES = frozenset({"LOOPD_ADMIN_TOKEN"})

_SYNTAX_LINE = re.compile(r"\(at line (\d+), column \d+\)")
_SHOWN_VALUE_MAX_CHARACTERS = 80


def load_settings(directory: Path, environment: Mapping[str, str] | None = None) -> Settings:
    """The settings of the node in `directory`: defaults, over them `loopd.toml`, over it the environment.

    Relative paths are taken from `directory`. SettingsError holds every problem found.
    """
    file = directory / SETTINGS_FILE_NAME
    try:
        with file.open("rb") as stream:
            content = stream.read(SETTINGS_FILE_MAX_BYTES + 1)
    except OSError as error:
        raise SettingsError([Problem(str(file), "", error.strerror or "cannot be read")]) from None
    if len(content) > SETTINGS_FILE_MAX_BYTES:
        raise SettingsError([Problem(str(file), "", f"is larger than {SETTINGS_FILE_MAX_BYTES} bytes")])
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise SettingsError([Problem(f"{file}:{line}", "", "is not UTF-8 text")]) from None
    settings = parse_settings(text, str(file), os.environ if environment is None else environment)
    return settings.resolved_paths(directory)


def parse_settings(text: str, file_name: str, environment: Mapping[str, str]) -> Settings:
    """The settings in the text of a file and in the environment; paths stay as written."""
    try:
        return _Loader(file_name, text).load(environment)
    except RecursionError:
        raise SettingsError([Problem(file_name, "", "values are nested too deep")]) from None


@dataclass
class _Loader:
    file_name: str
    text: str
    values: dict[str, Any] = field(default_factory=dict)
    variables: dict[tuple[str, str], str] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def load(self, environment: Mapping[str, str]) -> Settings:
        self.known = all_settings()
        self.section_names = list(dict.fromkeys(section for section, _ in self.known))
        self.lines = locate_keys(self.text)
        self._read_file()
        self._read_environment(environment)
        settings = self._validate()
        if settings is not None:
            for section, key, message in contradictions(settings):
                value = self.values.get(section, {}).get(key)
                self._add((section, key), value, message)
        if self.problems or settings is None:
            raise SettingsError(sorted(self.problems, key=self._position))
        return settings

    def _read_file(self) -> None:
        try:
            document = tomllib.loads(self.text)
        except tomllib.TOMLDecodeError as error:
            line = _SYNTAX_LINE.search(str(error))
            place = f"{self.file_name}:{line[1]}" if line else f"{self.file_name}:{len(self.text.splitlines()) or 1}"
            message = _SYNTAX_LINE.sub("", str(error)).strip()
            raise SettingsError([Problem(place, "", f"not TOML: {message[:1].lower()}{message[1:]}")]) from None
        for section, values in document.items():
            if section not in self.section_names:
                self._add((section,), None, _unknown("section", section, self.section_names), shown=False)
            elif not isinstance(values, dict):
                self._add((section,), values, f"must be a table: [{section}]")
            else:
                self.values[section] = {
                    key: self._from_toml(section, key, value)
                    for key, value in values.items()
                    if self._usable((section, key), value)
                }

    def _usable(self, path: tuple[str, ...], value: Any) -> bool:
        """Whether JSON, and with it the models, can express the value; if not, the problem is noted here."""
        if isinstance(value, date | time):
            self._add(path, value, f"a date or time is not expected{self._allowed(path)}")
            return False
        if isinstance(value, float) and not math.isfinite(value):
            self._add(path, value, f"must be finite{self._allowed(path)}")
            return False
        if isinstance(value, dict):
            verdicts = [self._usable((*path, key), item) for key, item in value.items()]
            return all(verdicts)
        if isinstance(value, list):
            verdicts = [self._usable(path, item) for item in value]
            return all(verdicts)
        return True

    def _from_toml(self, section: str, key: str, value: Any) -> Any:
        setting = self.known.get((section, key))
        if setting is not None and setting.shape.nullable and value == NONE_WORD:
            return None
        return value

    def _read_environment(self, environment: Mapping[str, str]) -> None:
        by_variable = {setting.variable: setting for setting in self.known.values()}
        for variable in sorted(environment):
            if not variable.startswith(VARIABLE_PREFIX) or variable in COMMAND_VARIABLES:
                continue
            setting = by_variable.get(variable)
            if setting is None:
                self.problems.append(Problem(variable, "", _unknown("variable", variable, by_variable, listed=False)))
                continue
            if not _is_unicode(environment[variable]):
                self.problems.append(Problem(variable, setting.name, "is not UTF-8 text"))
                continue
            # Where the section stands in the file as something else than a table, that is reported already.
            self.values.setdefault(setting.section, {})[setting.key] = from_text(environment[variable], setting.shape)
            self.variables[(setting.section, setting.key)] = variable

    def _validate(self) -> Settings | None:
        # Strict, so that radius_km = "1000" is refused; as JSON, because there lists and texts stand for what TOML
        # cannot express (tuples, networks, paths).
        try:
            return Settings.model_validate_json(json.dumps(self.values), strict=True)
        except ValidationError as error:
            for path, details in _one_for_each_place(error.errors()):
                self._explain(path, details)
            return None

    def _explain(self, path: tuple[str, ...], details: list[ErrorDetails]) -> None:
        first = details[0]
        match first["type"]:
            case _ if not path:
                self.problems.append(Problem(self.file_name, "", _plain_message(first)))
            case "extra_forbidden" if len(path) == 2:
                keys = [key for section, key in self.known if section == path[0]]
                self._add(path, None, _unknown("setting", path[1], keys), shown=False)
            case "missing" if len(path) <= 2:
                missing = [
                    setting
                    for setting in self.known.values()
                    if setting.required and setting.section == path[0] and path[1:] in ((), (setting.key,))
                ]
                for setting in missing:
                    # A value of the wrong kind was taken out before, and told already.
                    if any(problem.setting == setting.name for problem in self.problems):
                        continue
                    self._add((setting.section, setting.key), None, _required(setting), shown=False)
            case _:
                # Each member of a union has its own complaint; what is allowed says more than all of them.
                message = _plain_message(first) if len(details) == 1 else "is none of that"
                if len(path) == 3 and isinstance(first["input"], dict):
                    # TOML reads `vienna.loop = 5000` as a table `vienna` with a key `loop`.
                    quoted = ", ".join(json.dumps(f"{path[2]}.{key}") for key in first["input"])
                    message = f"a key with a dot stands in quotes: {quoted}" if quoted else message
                self._add(path, first["input"], message + self._allowed(path))

    def _add(self, path: tuple[str, ...], value: Any, message: str, *, shown: bool = True) -> None:
        variable = self.variables.get((path[0], path[1])) if len(path) > 1 else None
        place = variable or f"{self.file_name}:{line_of(self.lines, path)}"
        name = ".".join(path)
        subject = f"{name} = {_shown(value)}" if shown else name
        self.problems.append(Problem(place, name, f"{subject}: {message}"))

    def _position(self, problem: Problem) -> tuple[int, str]:
        """Sorts the file's problems by line, those of the environment behind them by name."""
        line = problem.place.removeprefix(f"{self.file_name}:")
        return (int(line), "") if line.isdigit() else (sys.maxsize, problem.place)

    def _allowed(self, path: tuple[str, ...]) -> str:
        setting = self.known.get((path[0], path[1])) if len(path) > 1 else None
        if setting is None:
            return ""
        shape = setting.shape
        if len(path) > 2 and shape.item is not None:
            shape = shape.item
        return f" (allowed: {shape.allowed})"


def _one_for_each_place(errors: Iterable[ErrorDetails]) -> list[tuple[tuple[str, ...], list[ErrorDetails]]]:
    """Errors by setting; a union reports one for each of its members, with the member's name in the path."""
    grouped: dict[tuple[str, ...], list[ErrorDetails]] = {}
    for error in errors:
        path = tuple(map(str, error["loc"][:3]))
        grouped.setdefault(path, []).append(error)
    return list(grouped.items())


def from_text(text: str, shape: Shape) -> Any:
    """The value that an environment variable's text means; the text itself where it means none, to be refused later."""
    if shape.nullable and text == NONE_WORD:
        return None
    match shape.kind:
        case Kind.BOOLEAN:
            return {"true": True, "false": False}.get(text, text)
        case Kind.INTEGER:
            return int(text) if re.fullmatch(r"[+-]?[0-9]{1,18}", text, re.ASCII) else text
        case Kind.NUMBER:
            return _number(text)
        case Kind.LIST:
            return _list(text, shape.item)
        case Kind.TABLE:
            return _json(text)
        case Kind.TEXT:
            return text


def _is_unicode(text: str) -> bool:
    """Whether the variable's bytes were UTF-8; Python keeps others as lone surrogates."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _number(text: str) -> float | str:
    try:
        number = Decimal(text)
    except InvalidOperation:
        return text
    return float(number) if number.is_finite() and math.isfinite(float(number)) else text


def _list(text: str, item: Shape | None) -> Any:
    if text.lstrip().startswith("["):
        return _json(text)
    parts = [part.strip() for part in text.split(",") if part.strip()]
    return [from_text(part, item) for part in parts] if item else parts


def _json(text: str) -> Any:
    def not_a_number(word: str) -> None:
        raise ValueError(f"{word} is no JSON")

    try:
        return json.loads(text, parse_constant=not_a_number)
    except (ValueError, RecursionError):
        return text


def _required(setting: Setting) -> str:
    example = f", for example {json.dumps(setting.example)}" if setting.example is not None else ""
    return f"is required ({setting.shape.allowed}{example})"


def _unknown(what: str, name: str, known: Iterable[str], *, listed: bool = True) -> str:
    names = list(known)
    near = difflib.get_close_matches(name, names, n=1)
    if near:
        return f"no such {what}; did you mean {near[0]}?"
    return f"no such {what} (there are: {', '.join(names)})" if listed else f"no such {what}"


def _plain_message(error: ErrorDetails) -> str:
    message = error["msg"]
    for start, plain in (
        ("Input should be ", "must be "),
        ("Value error, ", ""),
        ("Input is ", "is "),
        ("String should ", "must "),
        ("Decimal input should ", "must "),
    ):
        if message.startswith(start):
            return plain + message.removeprefix(start)
    return message[:1].lower() + message[1:]


def _shown(value: Any) -> str:
    text = json.dumps(value, default=str, ensure_ascii=False)
    return text if len(text) <= _SHOWN_VALUE_MAX_CHARACTERS else text[:_SHOWN_VALUE_MAX_CHARACTERS] + "..."
