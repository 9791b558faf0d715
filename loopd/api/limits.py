"""Rate limits (§10.4): how many requests a client or a node may make in a minute.

A sliding window, counted by the `limits` library's strategy over a storage that never holds more than a fixed number
of clients. At that number the client that was first seen is forgotten, so that many addresses cost no memory; what
they gain by it is one fresh minute.
"""

from math import ceil, floor

from limits import RateLimitItemPerMinute
from limits.storage import SlidingWindowCounterSupport, Storage
from limits.strategies import SlidingWindowCounterRateLimiter

from loopd.api.routes import RateClass
from loopd.api.settings import ApiSettings
from loopd.clock import Clock
from loopd.protocol.errors import Refusal
from loopd.protocol.limits import RATE_LIMITED_CLIENTS_MAX


class BoundedStorage(Storage, SlidingWindowCounterSupport):
    """Counters of the present window and the one before, for a bounded number of keys."""

    STORAGE_SCHEME = ["loopd-bounded"]  # noqa: RUF012 - as the library declares it

    def __init__(self, clock: Clock, max_keys: int = RATE_LIMITED_CLIENTS_MAX) -> None:
        super().__init__()
        self._clock = clock
        self._max_keys = max_keys
        # key -> (number of the window, count in it, count in the one before)
        self._counts: dict[str, tuple[int, int, int]] = {}

    def __len__(self) -> int:
        return len(self._counts)

    def acquire_sliding_window_entry(self, key: str, limit: int, expiry: int, amount: int = 1) -> bool:
        window, current, previous, left = self._state(key, expiry)
        if floor(previous * left) + current + amount > limit:
            return False
        if key not in self._counts and len(self._counts) >= self._max_keys:
            del self._counts[next(iter(self._counts))]
        self._counts[key] = (window, current + amount, previous)
        return True

    def get_sliding_window(self, key: str, expiry: int) -> tuple[int, float, int, float]:
        _, current, previous, left = self._state(key, expiry)
        return previous, left * expiry, current, left * expiry + expiry

    def wait_s(self, key: str, limit: int, expiry: int) -> int:
        """Whole seconds until one more request fits, at least one."""
        _, current, previous, left = self._state(key, expiry)
        if current < limit and previous:
            # The earlier window's share must fall below what the present one leaves over.
            return max(1, ceil((left - (limit - current) / previous) * expiry) + 1)
        # The present window becomes the earlier one, and then has to shrink by one request.
        return max(1, ceil((left + 1 / max(1, current)) * expiry))

    def _state(self, key: str, expiry: int) -> tuple[int, int, int, float]:
        window, passed = divmod(self._clock.monotonic_s() / expiry, 1)
        number = int(window)
        stored, current, previous = self._counts.get(key, (number, 0, 0))
        if stored != number:
            current, previous = 0, current if stored == number - 1 else 0
        return number, current, previous, 1 - passed

    @property
    def base_exceptions(self) -> type[Exception]:
        return ValueError

    def incr(self, key: str, expiry: int, amount: int = 1) -> int:
        window, current, previous, _ = self._state(key, expiry)
        self._counts[key] = (window, current + amount, previous)
        return current + amount

    def get(self, key: str) -> int:
        return self._counts.get(key, (0, 0, 0))[1]

    def get_expiry(self, key: str) -> float:
        return self._clock.monotonic_s()

    def check(self) -> bool:
        return True

    def reset(self) -> int | None:
        count = len(self._counts)
        self._counts.clear()
        return count

    def clear(self, key: str) -> None:
        self._counts.pop(key, None)

    def clear_sliding_window(self, key: str, expiry: int) -> None:
        self.clear(key)


class RateLimits:
    """§10.4's three limits. One instance serves a listener; nothing is counted where the setting is 0."""

    def __init__(self, settings: ApiSettings, clock: Clock) -> None:
        self._storage = BoundedStorage(clock)
        self._limiter = SlidingWindowCounterRateLimiter(self._storage)
        per_minute = {
            RateClass.USER: settings.user_requests_per_minute,
            RateClass.SEARCH: settings.search_requests_per_minute,
            RateClass.NODE: settings.node_requests_per_minute,
        }
        self._items = {
            rate: RateLimitItemPerMinute(count, namespace=rate.value) for rate, count in per_minute.items() if count
        }

    def count_client(self, rate: RateClass, client: str) -> None:
        """Count a request by its client's address. A search is a user's request too. Refusal 429 `rate_limited`."""
        if rate is RateClass.SEARCH:
            self._count(RateClass.USER, client)
        self._count(rate, client)

    def count_node(self, node_id: str) -> None:
        """Count a request by the node whose signature held. Refusal 429 `rate_limited`."""
        self._count(RateClass.NODE, node_id)

    def _count(self, rate: RateClass, who: str) -> None:
        item = self._items.get(rate)
        if item is None or self._limiter.hit(item, who):
            return
        wait_s = self._storage.wait_s(item.key_for(who), item.amount, item.get_expiry())
        details = {"limit": item.amount, "per_s": item.get_expiry(), "retry_after_s": wait_s}
        message = f"At most {item.amount} such requests a minute."
        raise Refusal(429, "rate_limited", message, details, retry_after_s=wait_s)
