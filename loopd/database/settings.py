"""The `[database]` section."""

from typing import Literal

from pydantic import Field

from loopd.room_settings import RoomSettings


class DatabaseSettings(RoomSettings):
    """How the node keeps what it knows: one SQLite file, written by one thread."""

    synchronous: Literal["FULL", "NORMAL"] = Field(
        default="FULL",
        description="`FULL` waits for the disk before anything is answered. `NORMAL` is faster on slow disks, and "
        "loses the last answered writes when the power fails.",
    )
    readers: int = Field(
        default=4,
        ge=1,
        le=64,
        description="How many reads run at once, each on a thread of its own. Too few, and a long one delays others.",
    )
    queue_max: int = Field(
        default=10_000,
        ge=1,
        le=1_000_000,
        description="How many writes, and how many reads, may wait. Beyond that a request is answered 503 at once.",
    )
    batch_max: int = Field(
        default=500,
        ge=1,
        le=100_000,
        description="How many writes share one transaction at most. 1 makes every write wait for the disk alone.",
    )
    batch_max_ms: int = Field(
        default=50,
        ge=1,
        le=10_000,
        description="How long a transaction gathers writes before it is committed, in milliseconds; it never waits "
        "for more to come. Long, and the first of them waits for its answer.",
    )
    busy_timeout_s: float = Field(
        default=5.0,
        ge=0.0,
        le=60.0,
        description="How long to wait for another process that holds the file, or for a free reader, before a request "
        "is answered 503.",
    )
