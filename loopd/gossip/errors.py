"""What a peer did wrong on a link: the bytes are not what was agreed."""


class ProtocolError(Exception):
    """Bytes from a peer that no honest implementation sends. Nothing of them counts, and the exchange is over.

    `reason` is the machine's word (`snake_case`), `message` one sentence for a person; neither repeats the bytes.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
