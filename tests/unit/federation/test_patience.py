"""A peer that grants few requests: what waits for it comes through all the same."""

from loopd.net.http_client import PeerAnswer
from tests.federation_support import City, befriend, eventually, refuse, subject_of

# Longer than the interval of probes: each wait ends with one due.
GRANT_EVERY_MS = 15_000
MESSAGES = 20


class Limited:
    """Lets one request of any kind pass every few seconds to a city that answers it as it would."""

    def __init__(self, sender: City, target: str) -> None:
        self._clock = sender.clock
        self._target = target
        self._next_ms = 0
        sender.network.answering = self.answer

    async def answer(self, target: str, method: str, path: str) -> PeerAnswer | None:
        now_ms = self._clock.now_ms()
        if target != self._target:
            return None
        if now_ms < self._next_ms:
            return refuse(429, "rate_limited", -(-(self._next_ms - now_ms) // 1000))
        self._next_ms = now_ms + GRANT_EVERY_MS
        return None


async def test_probes_do_not_use_up_what_a_limited_peer_grants(cities: list[City]) -> None:
    munich, vienna, _ = cities
    await befriend(munich, vienna)
    Limited(munich, "vienna.loop")
    for number in range(MESSAGES):
        await munich.announce(subject_of(f"MAT-DE-MUC-2026-FOOD-{number:06d}"))
    await eventually(lambda: len(vienna.heard()) == MESSAGES, munich, step_ms=500, timeout_s=20)
    # It is not pressed on with whole batches either.
    assert len(munich.network.to("vienna.loop", "/federate/announce")) < 5 * MESSAGES
