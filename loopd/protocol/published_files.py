"""Where the schemas and contexts are: at the top of a checkout, inside the package of an installed wheel."""

from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path


def published_files(kind: str) -> Traversable:
    """The directory of the `schemas` or of the `contexts`. FileNotFoundError where the installation lacks it."""
    installed = files("loopd").joinpath("_data", kind)
    if installed.is_dir():
        return installed
    checkout = Path(__file__).resolve().parents[2] / kind
    if not checkout.is_dir():
        raise FileNotFoundError(f"this installation of loopd lacks its {kind}")
    return checkout
