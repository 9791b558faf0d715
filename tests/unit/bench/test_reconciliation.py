from bench.reconciliation import as_markdown, cases, measure, measure_lookups

KIB = 1024


def test_a_tenth_of_a_hundred_thousand_missing_in_one_stretch_is_found_within_bounds() -> None:
    cost = measure(cases(100_000)[1])
    assert cost.missing == 10_000
    assert cost.sent_bytes + cost.ttl_bytes <= 40 * cost.missing
    assert cost.round_trips <= 4 + cost.sent_bytes // (256 * KIB)
    assert cost.cpu_s + cost.ttl_cpu_s < 2


def test_every_case_becomes_a_line() -> None:
    costs = [measure(case) for case in cases(1000)]
    assert [cost.missing for cost in costs] == [0, 100, 100, 100, 10, 10, 1, 1000]
    kept = measure_lookups(1000)
    assert 40 * 1000 < kept.bytes_at_rest < 100 * 1000
    table = as_markdown(costs, [kept])
    assert "| everything missing | 1,000 | 1 |" in table
    assert "| 1,000 | 0.0 |" in table
