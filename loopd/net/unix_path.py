"""Unix socket paths of any length.

The kernel takes at most 107 bytes in `sun_path`, and a data directory may lie deeper than that. A longer path is
reached through an opened descriptor of its directory: `/proc/self/fd/N/admin.sock`.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# sun_path holds 108 bytes with its final NUL; some room is left for what a caller puts behind the name.
UNIX_PATH_MAX_BYTES = 100


@contextmanager
def short_unix_path(path: Path) -> Iterator[str]:
    """A path for bind() or connect() that names the same socket, good while the context is open.

    OSError where the socket's directory does not exist.
    """
    if len(os.fsencode(path)) <= UNIX_PATH_MAX_BYTES:
        yield str(path)
        return
    descriptor = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{descriptor}/{path.name}"
    finally:
        os.close(descriptor)
