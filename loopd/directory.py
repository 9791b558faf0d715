"""The data directory of one node: what lies where, its key, and the lock that keeps a second process out."""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from loopd.crypto.keys import NodeKey

# A command that only asks whether the daemon runs holds the lock for microseconds; a starting daemon waits that out.
LOCK_PATIENCE_S = 1.0
LOCK_RETRY_S = 0.02
KEY_FILE_MAX_BYTES = 4096


class DirectoryError(Exception):
    """The directory, or something in it, is not as it must be. The text is meant for the operator."""


class DirectoryLocked(DirectoryError):
    """Another process works on this directory."""


@dataclass(frozen=True, slots=True)
class NodeDirectory:
    """The paths in a node's data directory."""

    root: Path

    @property
    def settings_file(self) -> Path:
        return self.root / "loopd.toml"

    @property
    def node_key_file(self) -> Path:
        return self.root / "node.key"

    @property
    def next_key_file(self) -> Path:
        """A key that is about to take the place of the present one."""
        return self.root / "node.key.next"

    @property
    def database_file(self) -> Path:
        return self.root / "loopd.db"

    @property
    def lock_file(self) -> Path:
        return self.root / "loopd.lock"

    @property
    def admin_socket(self) -> Path:
        return self.root / "admin.sock"

    @contextmanager
    def lock(self, patience_s: float = LOCK_PATIENCE_S) -> Iterator[None]:
        """Keep every other loopd process out of this directory while the context is open.

        The kernel drops the lock with the process, so a killed daemon leaves nothing to clean up. DirectoryLocked
        where somebody else still holds it after `patience_s` seconds.
        """
        descriptor = os.open(self.lock_file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            self._acquire(descriptor, patience_s)
            yield
        finally:
            os.close(descriptor)

    def in_use(self) -> bool:
        """Whether another loopd process holds the lock at this moment. Creates nothing."""
        try:
            descriptor = os.open(self.lock_file, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(descriptor)
        return False

    def _acquire(self, descriptor: int, patience_s: float) -> None:
        deadline = time.monotonic() + patience_s
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise DirectoryLocked(f"{self.root} is in use by another loopd process") from None
                time.sleep(LOCK_RETRY_S)
            else:
                return

    def load_node_key(self) -> NodeKey:
        """The node's key. DirectoryError where the file is missing, open to others, or no Ed25519 key."""
        return self._load_key(self.node_key_file)

    def load_next_key(self) -> NodeKey | None:
        """The key that was about to take the present one's place; None where there is none, or no whole one."""
        try:
            return self._load_key(self.next_key_file)
        except DirectoryError:
            return None

    def write_next_key(self, seed: bytes) -> None:
        """Put a new key beside the present one, durably."""
        self.forget_next_key()
        write_new_file(self.next_key_file, node_key_to_pem(seed))
        self._sync()

    def take_up_next_key(self) -> None:
        """Let the new key take the present one's place, durably and at once."""
        self.next_key_file.replace(self.node_key_file)
        self._sync()

    def forget_next_key(self) -> None:
        """There is to be no new key."""
        self.next_key_file.unlink(missing_ok=True)

    def _sync(self) -> None:
        descriptor = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    @staticmethod
    def _load_key(path: Path) -> NodeKey:
        try:
            with path.open("rb") as file:
                mode = os.fstat(file.fileno()).st_mode
                content = file.read(KEY_FILE_MAX_BYTES)
        except OSError as error:
            raise DirectoryError(f"{path}: {error.strerror}") from None
        if mode & 0o077:
            raise DirectoryError(f"{path}: others than its owner may read it (mode {mode & 0o777:04o}, must be 0600)")
        return NodeKey.from_seed(_seed_from_pem(path, content))


def _seed_from_pem(path: Path, content: bytes) -> bytes:
    try:
        key = load_pem_private_key(content, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise DirectoryError(f"{path}: not an unencrypted private key in PEM form") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise DirectoryError(f"{path}: not an Ed25519 key")
    return key.private_bytes_raw()


def node_key_to_pem(seed: bytes) -> bytes:
    """The key file's content: PKCS #8 in PEM (RFC 8410), as `openssl pkey` reads it."""
    key = Ed25519PrivateKey.from_private_bytes(seed)
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def write_new_file(path: Path, content: bytes, mode: int = 0o600) -> None:
    """Create a file with its final mode from the first moment, durably. FileExistsError where there is one."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
