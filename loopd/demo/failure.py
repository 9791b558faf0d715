"""The one way in which the demonstration fails."""


class DemoFailed(Exception):
    """It cannot go on. The text is for people, and ends with the log of the node concerned where there is one."""
