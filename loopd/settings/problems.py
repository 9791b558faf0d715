"""What is wrong with the settings, told so that the operator finds the place."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong. `place` is `FILE:LINE` or the variable's name; `message` says what and what is allowed.

    `setting` is the dotted name (`federation.radius_km`), empty where no single setting is meant.
    """

    place: str
    setting: str
    message: str

    def __str__(self) -> str:
        return ": ".join(part for part in (self.place, self.message) if part)


class SettingsError(Exception):
    """The settings cannot be used. `problems` holds everything that is wrong, in the order of the places."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__("\n".join(map(str, problems)))
        self.problems = tuple(problems)
