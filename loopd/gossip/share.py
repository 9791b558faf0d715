"""What one origin, and one sender, may take of the store of messages, so that neither holds out the others."""

from dataclasses import dataclass

# What an origin may always hold, as a part of the store.
ORIGIN_PART = 100


@dataclass(frozen=True, slots=True)
class Held:
    """How many messages are stored: all of them, those of one origin, and those that one sender brought first."""

    messages: int
    of_origin: int
    from_sender: int


def within_share(held: Held, messages_max: int, senders_max: int) -> bool:
    """Whether one more of that origin, by that sender, leaves the others their room.

    An origin with a hundredth of the store gets no more of it once half is taken. A sender with its equal part of the
    last quarter gets no more once three quarters are taken: so that quarter holds the equal part of each of them.
    Nothing that was taken has to go.
    """
    origin_share = max(1, messages_max // ORIGIN_PART)
    sender_share = max(1, messages_max // (4 * senders_max))
    return (2 * held.messages < messages_max or held.of_origin < origin_share) and (
        4 * held.messages < 3 * messages_max or held.from_sender < sender_share
    )
