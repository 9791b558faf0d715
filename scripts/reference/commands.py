"""docs/commands.md: every command with its help."""

import click

from loopd.cli.root import commands

_INTRODUCTION = """# Commands

Generated from the commands themselves. Every command exits 0 when it is done, 1 when it failed, 2 when it was misused;
errors go to standard error. Tables are for people and plain when piped; `--json` is for machines.
"""


def commands_page() -> str:
    """The page."""
    # As the program makes it: without its settings the commands would have other names for their help.
    context = click.Context(commands, info_name="loopd", **commands.context_settings)
    return "\n".join([_INTRODUCTION, *_describe(commands, context)])


def _describe(command: click.Command, context: click.Context) -> list[str]:
    if isinstance(command, click.Group):
        parts = []
        for name in command.list_commands(context):
            child = command.get_command(context, name)
            if child is not None:
                parts += _describe(child, click.Context(child, info_name=name, parent=context))
        return parts
    context.terminal_width = context.max_content_width = 100
    # click keeps the help option under the names that the command's first context had; who asked first must not matter.
    command._help_option = None
    usage = command.get_help(context).rstrip()
    return [f"## {context.command_path}\n\n```text\n{usage}\n```\n"]
