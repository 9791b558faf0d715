"""`python -m bench.hop_chain`: what it costs to verify the TTL that a relayed copy shows."""

import timeit
from typing import Final

import click

from loopd.crypto.hop_chain import hop_anchor, reaches_anchor
from loopd.protocol.limits import FLOOD_TTL_MAX

_CALLS: Final = 100_000
_ROUNDS: Final = 7


@click.command()
def main() -> None:
    """Verify hop values of each TTL; microseconds each, of the fastest round: the others were disturbed."""
    for ttl in range(1, FLOOD_TTL_MAX + 1):
        value = bytes(range(32))
        anchor = hop_anchor(value, ttl)
        took_s = min(timeit.repeat(lambda: reaches_anchor(value, ttl, anchor), number=_CALLS, repeat=_ROUNDS))  # noqa: B023
        click.echo(f"TTL {ttl}: {took_s / _CALLS * 1e6:.2f} µs")


if __name__ == "__main__":
    main()
