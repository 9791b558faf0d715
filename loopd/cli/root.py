"""The `loopd` command: which commands there are, and what its exit codes mean."""

import importlib
import sys
from collections.abc import Mapping
from typing import Any

import click

import loopd
from loopd.cli.options import CommandGroup
from loopd.database import UnusableDatabase
from loopd.directory import DirectoryError
from loopd.ledger.refusals import UnusableLedger
from loopd.net.tls import TlsError
from loopd.protocol.errors import Refusal
from loopd.settings import SettingsError

EXIT_FAILED = 1
EXIT_MISUSED = 2
EXIT_INTERRUPTED = 130

# A command's module is imported when it is called: `loopd token create` does not wait for the daemon's imports.
COMMANDS: Mapping[str, str] = {
    "init": "loopd.cli.init:init",
    "run": "loopd.cli.run:run",
    "check-config": "loopd.cli.check_config:check_config",
    "status": "loopd.cli.status:status",
    "backup": "loopd.cli.backup:backup",
    "token": "loopd.cli.token:token",
    "peer": "loopd.cli.peer:peer",
    "material": "loopd.cli.material:material",
    "search": "loopd.cli.search:search",
    "offer": "loopd.cli.offer:offer",
    "supply": "loopd.cli.deals:supply",
    "match": "loopd.cli.deals:match",
    "transfer": "loopd.cli.deals:transfer",
    "transaction": "loopd.cli.deals:transaction",
    "mirror": "loopd.cli.mirror:mirror",
    "wanted": "loopd.cli.wanted:wanted",
    "route": "loopd.cli.route:route",
    "plan": "loopd.cli.plan:plan",
    "vote": "loopd.cli.vote:vote",
    "ledger": "loopd.cli.ledger:ledger",
    "clearing": "loopd.cli.clearing:clearing",
    "events": "loopd.cli.events:events",
    "webhook": "loopd.cli.webhook:webhook",
    "explain": "loopd.cli.explain:explain",
    "key": "loopd.cli.key:key",
    "demo": "loopd.cli.demo:demo",
    "simulate": "loopd.cli.simulate:simulate",
}


class Commands(CommandGroup):
    """Loads commands when they are needed, and ends the process as the command contract says."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, _, name = COMMANDS[cmd_name].partition(":")
        command = getattr(importlib.import_module(module), name)
        if not isinstance(command, click.Command):
            raise TypeError(f"{COMMANDS[cmd_name]} is no command")
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            raise click.UsageError(f"there is no command {args[0]!r} (there are: {', '.join(COMMANDS)})", ctx)
        return super().resolve_command(ctx, args)

    def main(self, *args: Any, **extra: Any) -> Any:
        """Run, and exit with 0, 1 or 2; what went wrong is told on standard error."""
        extra["standalone_mode"] = False
        try:
            result = super().main(*args, **extra)
        except click.exceptions.NoArgsIsHelpError as error:
            click.echo(error.format_message(), err=True)
            sys.exit(EXIT_MISUSED)
        except click.UsageError as error:
            command = error.ctx.command_path if error.ctx else "loopd"
            _complain(f"{error.format_message()} ({command} --help tells more)")
            sys.exit(EXIT_MISUSED)
        except click.ClickException as error:
            _complain(error.format_message())
            sys.exit(error.exit_code)
        except (SettingsError, DirectoryError, TlsError, UnusableDatabase, UnusableLedger, Refusal) as error:
            _complain(str(error))
            sys.exit(EXIT_FAILED)
        except (click.Abort, KeyboardInterrupt):
            sys.exit(EXIT_INTERRUPTED)
        sys.exit(result if isinstance(result, int) else 0)


def _complain(message: str) -> None:
    for line in message.splitlines():
        click.echo(f"loopd: {line}", err=True)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(loopd.__version__, message="%(version)s")
def commands() -> None:
    """A node of the LOOP protocol: a city's materials, offered to the cities around it.

    \b
    Exit codes: 0 done, 1 failed, 2 misused.
    LOOPD_ADMIN_TOKEN: an admin token, where api.admin_listen is an address and not the socket.
    """
