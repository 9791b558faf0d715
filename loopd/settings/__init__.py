"""Everything an operator can set: `loopd.toml`, overridden by the environment, checked as a whole."""

from loopd.settings.load import load_settings, parse_settings
from loopd.settings.model import DaemonSettings, NodeSettings, Settings, TlsSettings
from loopd.settings.problems import Problem, SettingsError

__all__ = [
    "DaemonSettings",
    "NodeSettings",
    "Problem",
    "Settings",
    "SettingsError",
    "TlsSettings",
    "load_settings",
    "parse_settings",
]
