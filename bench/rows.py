"""What is measured: one row of the table, its samples, and what they come to."""

import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from statistics import median


@dataclass(frozen=True, slots=True)
class Sample:
    """One round of one row. `cpu_s` is that of the measured process alone, not of the load on it.

    `latencies_s` is empty where there is nobody who waits for an answer.
    """

    operations: int
    elapsed_s: float
    cpu_s: float
    latencies_s: Sequence[float] = ()


@dataclass(frozen=True, slots=True)
class Row:
    """One line: `sample(seconds)` measures it once, `parts` names the bare rows that its work is made of."""

    name: str
    title: str
    sample: Callable[[float], Awaitable[Sample]]
    parts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Result:
    """A row's figures. `times_bare` is its CPU time over that of its parts together; None where it has none."""

    name: str
    title: str
    per_s: float
    cpu_us: float
    p50_ms: float | None
    p99_ms: float | None
    parts: tuple[str, ...]
    times_bare: float | None


def summarise(row: Row, samples: Sequence[Sample], bare_cpu_us: dict[str, float]) -> Result:
    """The median over the rounds, so that one disturbed round does not count."""
    cpu_us = median(sample.cpu_s / sample.operations * 1e6 for sample in samples)
    waits_s = sorted(wait for sample in samples for wait in sample.latencies_s)
    return Result(
        row.name,
        row.title,
        median(sample.operations / sample.elapsed_s for sample in samples),
        cpu_us,
        _quantile_ms(waits_s, 0.50),
        _quantile_ms(waits_s, 0.99),
        row.parts,
        cpu_us / sum(bare_cpu_us[part] for part in row.parts) if row.parts else None,
    )


def _quantile_ms(ascending_s: Sequence[float], share: float) -> float | None:
    return ascending_s[int(len(ascending_s) * share)] * 1000 if ascending_s else None


def spin(operation: Callable[[], object], operations_per_call: int = 1) -> Callable[[float], Awaitable[Sample]]:
    """A sampler that calls `operation` on this thread until the time is over."""

    async def sample(seconds: float) -> Sample:
        operation()
        calls = 0
        started_s, cpu_started_s = time.perf_counter(), time.process_time()
        while time.perf_counter() - started_s < seconds:
            operation()
            calls += 1
        elapsed_s, cpu_s = time.perf_counter() - started_s, time.process_time() - cpu_started_s
        return Sample(calls * operations_per_call, elapsed_s, cpu_s)

    return sample
