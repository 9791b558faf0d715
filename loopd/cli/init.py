"""`loopd init`: a new node's directory, whole or not at all."""

import asyncio
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from loopd.api.settings import parse_listen_address
from loopd.cli.failure import Failure
from loopd.cli.options import directory_argument
from loopd.clock import SystemClock
from loopd.crypto.keys import SEED_BYTES, NodeKey
from loopd.database import Database
from loopd.directory import NodeDirectory, node_key_to_pem, write_new_file
from loopd.net.tls import DevelopmentAuthority, certificate_problems, development_names
from loopd.settings import Settings, SettingsError, parse_settings
from loopd.settings.example import render_toml

CERTIFICATE_NAME = "tls-cert.pem"
CERTIFICATE_KEY_NAME = "tls-key.pem"
AUTHORITY_NAME = "ca"

# What each key of the settings is called on this command line.
_OPTION_OF_SETTING = {
    "node.id": "--node-id",
    "node.name": "--name",
    "node.city": "--city",
    "node.country": "--country",
    "node.lat": "--lat",
    "node.lon": "--lon",
    "node.endpoint": "--endpoint",
    "api.listen": "--listen",
}


@click.command()
@directory_argument
@click.option("--node-id", required=True, help="The node's name in the federation, such as munich.loop.")
@click.option("--name", required=True, help="What people call the node.")
@click.option("--city", required=True, help="The city that it serves.")
@click.option("--country", required=True, help="Two capital letters, such as DE.")
@click.option("--lat", required=True, type=float, help="Latitude in degrees, north positive.")
@click.option("--lon", required=True, type=float, help="Longitude in degrees, east positive.")
@click.option("--listen", default="127.0.0.1:8443", show_default=True, help="Address and port of the API.")
@click.option("--endpoint", required=True, help="Where other nodes reach it: https://HOST[:PORT]/api/v1.")
@click.option("--tls-cert", type=click.Path(path_type=Path), help="The certificate with its chain, PEM.")
@click.option("--tls-key", type=click.Path(path_type=Path), help="The certificate's key, PEM.")
@click.option("--dev", is_flag=True, help="For nodes on one machine: own authority, open admission, no rate limits.")
@click.option("--ca", type=click.Path(path_type=Path), help="With --dev: the authority's directory, made if absent.")
def init(
    directory: NodeDirectory,
    listen: str,
    tls_cert: Path | None,
    tls_key: Path | None,
    dev: bool,
    ca: Path | None,
    node_id: str,
    **node: Any,
) -> None:
    """Make a new node in DIR: its settings, key and database. Nothing that is there is overwritten."""
    if (tls_cert is None) != (tls_key is None):
        raise click.UsageError("--tls-cert and --tls-key go together")
    if dev and tls_cert is not None:
        raise click.UsageError("--dev makes a certificate of its own; leave out --tls-cert and --tls-key")
    if ca is not None and not dev:
        raise click.UsageError("--ca goes with --dev")
    values: dict[str, dict[str, Any]] = {"node": {"id": node_id, **node}, "api": {"listen": listen}}
    if tls_cert is not None and tls_key is not None:
        values["tls"] = {"certificate": tls_cert.absolute(), "key": tls_key.absolute()}
    if dev:
        authority = (Path(AUTHORITY_NAME) if ca is None else ca.absolute()) / "ca.pem"
        values |= _development_values(authority)
        values["api"] |= {f"{kind}_requests_per_minute": 0 for kind in ("user", "node", "search")}
    settings = _checked(values)
    now = datetime.now(UTC)
    if tls_cert is not None:
        problems = certificate_problems(settings.tls.certificate, settings.tls.key, settings.node.endpoint_host, now)
        if problems:
            raise Failure("\n".join(problems))
    with staged(directory) as staging:
        if dev:
            _issue_certificate(staging, settings, ca, now)
        seed = secrets.token_bytes(SEED_BYTES)
        write_new_file(staging.node_key_file, node_key_to_pem(seed))
        asyncio.run(_create_database(staging, settings))
        write_new_file(staging.settings_file, render_toml(values).encode(), mode=0o644)
    click.echo(f"{directory.root}: {settings.node.id}, key {NodeKey.from_seed(seed).public.fingerprint}")
    names = (CERTIFICATE_NAME, CERTIFICATE_KEY_NAME)
    if tls_cert is None and not dev and not all((directory.root / name).exists() for name in names):
        click.echo(
            f"Put the certificate and its key into {directory.root} as {CERTIFICATE_NAME} and {CERTIFICATE_KEY_NAME}."
        )


def _development_values(authority: Path) -> dict[str, dict[str, Any]]:
    return {
        "tls": {
            "certificate": Path(CERTIFICATE_NAME),
            "key": Path(CERTIFICATE_KEY_NAME),
            "ca_file": authority,
        },
        "federation": {"admission": "open", "learn_peers": False},
        "daemon": {"development": True},
    }


def _checked(values: dict[str, dict[str, Any]]) -> Settings:
    """The settings that the file will hold. A bad option is misuse, told by the option's name."""
    try:
        return parse_settings(render_toml(values), "loopd.toml", environment={})
    except SettingsError as error:
        raise click.UsageError(
            "; ".join(
                f"{_OPTION_OF_SETTING.get(problem.setting, problem.setting)}: {problem.message}"
                for problem in error.problems
            )
        ) from None


def _issue_certificate(staging: NodeDirectory, settings: Settings, ca: Path | None, now: datetime) -> None:
    authority = DevelopmentAuthority.open_or_create(staging.root / AUTHORITY_NAME if ca is None else ca, now)
    listen_host, _ = parse_listen_address(settings.api.listen)
    issued = authority.issue(development_names(listen_host, settings.node.endpoint_host), now)
    write_new_file(staging.root / CERTIFICATE_KEY_NAME, issued.key_pem)
    write_new_file(staging.root / CERTIFICATE_NAME, issued.certificate_pem, mode=0o644)


async def _create_database(staging: NodeDirectory, settings: Settings) -> None:
    database = await Database.create(staging.database_file, settings.database, SystemClock())
    await database.close()


@contextmanager
def staged(directory: NodeDirectory) -> Iterator[NodeDirectory]:
    """A directory to work in, whose entries move to `directory` when the block ends well; else nothing remains.

    Failure where one of the names is taken. The settings come last: without them the directory is no node yet.
    """
    root = directory.root
    try:
        made = _make_directories(root)
    except OSError as error:
        raise Failure(f"{error.filename or root}: {error.strerror}") from None
    placed: list[Path] = []
    staging: Path | None = None
    try:
        taken = [
            path
            for path in (directory.settings_file, directory.node_key_file, directory.database_file)
            if os.path.lexists(path)
        ]
        if taken:
            raise Failure(f"{taken[0]} exists already; init never overwrites")
        staging = Path(tempfile.mkdtemp(prefix=".init-", dir=root))
        yield NodeDirectory(staging)
        entries = sorted(staging.iterdir(), key=lambda entry: entry.name == directory.settings_file.name)
        for entry in entries:
            placed.append(_place(entry, root / entry.name))
        _sync(root)
    except BaseException as error:
        for path in placed:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        _remove(staging)
        for path in reversed(made):
            path.rmdir()
        if isinstance(error, OSError):
            raise Failure(f"{error.filename or root}: {error.strerror}") from None
        raise
    _remove(staging)


def _make_directories(root: Path) -> list[Path]:
    missing = [path for path in (root, *root.parents) if not path.exists()]
    made = []
    for path in reversed(missing):
        path.mkdir(mode=0o700 if path == root else 0o755)
        made.append(path)
    if not root.is_dir():
        raise NotADirectoryError(20, "is not a directory", str(root))
    return made


def _place(entry: Path, target: Path) -> Path:
    """Give the entry its final name; FileExistsError, with nothing changed, where that is taken."""
    if entry.is_dir():
        if os.path.lexists(target):
            raise FileExistsError(17, "exists already", str(target))
        entry.rename(target)
    else:
        # Unlike a rename, a link never replaces what another process put there meanwhile.
        os.link(entry, target)
    return target


def _sync(root: Path) -> None:
    descriptor = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove(staging: Path | None) -> None:
    if staging is not None:
        shutil.rmtree(staging, ignore_errors=True)
