"""The operator's commands. They decide nothing: the daemon does.

Exit 0: done. 1: failed. 2: misused. Errors go to standard error, each line as `loopd: ...`; what was asked for goes to
standard output: a table on a terminal, tab-separated text in a pipe, JSON with `--json`.
"""

from loopd.cli.root import commands


def main() -> None:
    """The entry point of the `loopd` command."""
    commands(prog_name="loopd")
