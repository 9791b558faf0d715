import json
from decimal import Decimal
from ipaddress import ip_network
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loopd.settings import Problem, Settings, SettingsError, load_settings, parse_settings
from loopd.settings.describe import all_settings
from loopd.settings.example import render_toml, toml_value

NODE = {
    "id": "munich.loop",
    "name": "Munich",
    "city": "Munich",
    "country": "DE",
    "lat": 48.1351,
    "lon": 11.582,
    "endpoint": "https://127.0.0.1:8443/api/v1",
}
NODE_TOML = "[node]\n" + "\n".join(f"{key} = {toml_value(value)}" for key, value in NODE.items()) + "\n"
NODE_LINES = NODE_TOML.count("\n")


def parse(extra: str = "", environment: dict[str, str] | None = None) -> Settings:
    return parse_settings(NODE_TOML + extra, "munich/loopd.toml", environment or {})


def problems(extra: str = "", environment: dict[str, str] | None = None, text: str | None = None) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        parse_settings(NODE_TOML + extra if text is None else text, "munich/loopd.toml", environment or {})
    return [str(problem) for problem in caught.value.problems]


def test_a_value_out_of_bounds_is_told_with_its_place_and_what_is_allowed() -> None:
    assert problems("\n[federation]\nradius_km = -3\n") == [
        f"munich/loopd.toml:{NODE_LINES + 3}: federation.radius_km = -3: must be greater than 0 "
        '(allowed: number above 0 to 20016, or "none")'
    ]


def test_everything_that_is_wrong_is_told_at_once_in_the_order_of_the_file() -> None:
    found = problems(
        '[federation]\nradus_km = 4\nadmission = "opn"\n[fed]\na = 1\n[database]\nreaders = "3"\n',
        {"LOOPD_DAEMON__DEVELOPMENT": "yes", "LOOPD_FEDERATION__RADUS_KM": "1"},
    )
    start = NODE_LINES
    assert found == [
        f"munich/loopd.toml:{start + 2}: federation.radus_km: no such setting; did you mean radius_km?",
        f"munich/loopd.toml:{start + 3}: federation.admission = \"opn\": must be 'manual', 'verified' or 'open' "
        '(allowed: "manual", "verified" or "open")',
        f"munich/loopd.toml:{start + 4}: fed: no such section "
        "(there are: node, api, tls, federation, exchange, signals, webhooks, ledger, database, log, daemon)",
        f'munich/loopd.toml:{start + 7}: database.readers = "3": must be a valid integer '
        "(allowed: integer from 1 to 64)",
        'LOOPD_DAEMON__DEVELOPMENT: daemon.development = "yes": must be a valid boolean (allowed: true or false)',
        "LOOPD_FEDERATION__RADUS_KM: no such variable; did you mean LOOPD_FEDERATION__RADIUS_KM?",
    ]


def test_required_keys_are_named_with_an_example() -> None:
    found = problems(text="[node]\n")
    assert len(found) == len(NODE)
    assert found[0].startswith("munich/loopd.toml:1: node.id: is required")
    assert '"munich.loop"' in found[0]
    assert len(problems(text="")) == len(NODE)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("readers = true", "must be a valid integer"),
        ("readers = 1.5", "must be a valid integer"),
        ("readers = 1979-05-27", "a date or time is not expected"),
        ("busy_timeout_s = nan", "must be finite"),
        ("busy_timeout_s = inf", "must be finite"),
        ("busy_timeout_s = [1]", "must be a valid number"),
        ('synchronous = "OFF"', "must be 'FULL' or 'NORMAL'"),
    ],
)
def test_a_value_of_the_wrong_kind_is_refused(line: str, said: str) -> None:
    (found,) = problems(f"[database]\n{line}\n")
    assert found.startswith(f"munich/loopd.toml:{NODE_LINES + 2}: database.")
    assert said in found


@pytest.mark.parametrize(
    ("limits", "said"),
    [
        ("{ vienna.loop = 5000 }", 'a key with a dot stands in quotes: "vienna.loop" (allowed: number'),
        ('{ "Vienna" = 5000 }', "not a node's id: Vienna (allowed: table"),
        ('{ "vienna.loop" = "much" }', "must be a valid decimal (allowed: number"),
        ('{ "vienna.loop" = {} }', "must be"),
    ],
)
def test_a_limit_for_no_node_is_told_as_what_it_is(limits: str, said: str) -> None:
    (found,) = problems(f"[ledger]\ncredit_limits = {limits}\n")
    assert found.startswith(f"munich/loopd.toml:{NODE_LINES + 2}: ledger.credit_limits")
    assert said in found


@pytest.mark.parametrize(
    "endpoint",
    [
        "http://munich.example/api/v1",
        "https://munich.example/",
        "https://munich.example/api/v1/",
        "https://munich.example/api/v1?x=1",
        "https:///api/v1",
        "https://user@munich.example/api/v1",
        "https://münchen.example/api/v1",
        "https://munich.example:99999/api/v1",
    ],
)
def test_an_endpoint_that_others_could_not_use_is_refused(endpoint: str) -> None:
    text = NODE_TOML.replace(NODE["endpoint"], endpoint)  # type: ignore[arg-type]
    (found,) = problems(text=text)
    assert "node.endpoint" in found


def test_open_admission_needs_development() -> None:
    (found,) = problems('[federation]\nadmission = "open"\n')
    assert found.startswith(f"munich/loopd.toml:{NODE_LINES + 2}: federation.admission")
    (found,) = problems("", {"LOOPD_FEDERATION__ADMISSION": "open"})
    assert found.startswith("LOOPD_FEDERATION__ADMISSION: ")
    assert parse('[federation]\nadmission = "open"\n[daemon]\ndevelopment = true\n').federation.admission == "open"


def test_the_environment_overrides_the_file() -> None:
    settings = parse(
        '[federation]\nradius_km = 7\nannounce = "manual"\n',
        {
            "LOOPD_FEDERATION__RADIUS_KM": "12.5",
            "LOOPD_DAEMON__DEVELOPMENT": "true",
            "LOOPD_DATABASE__READERS": "2",
            "LOOPD_FEDERATION__ALLOWED_NETWORKS": "10.0.0.0/8, fd00::/8",
            "LOOPD_API__TRUSTED_PROXIES": '["192.0.2.1/32"]',
            "LOOPD_SIGNALS__VALUES": '{"organic-food": 0.4, "default": 0.2}',
            "LOOPD_ADMIN_TOKEN": "is the commands' own",
            "OTHER_PROGRAM": "1",
        },
    )
    assert settings.federation.radius_km == 12.5
    assert settings.federation.announce == "manual"
    assert settings.daemon.development is True
    assert settings.database.readers == 2
    assert settings.federation.allowed_networks == (ip_network("10.0.0.0/8"), ip_network("fd00::/8"))
    assert settings.api.trusted_proxies == (ip_network("192.0.2.1/32"),)
    assert settings.signals.values == {"organic-food": Decimal("0.4"), "default": Decimal("0.2")}


def test_none_switches_a_setting_off_in_the_file_and_in_the_environment() -> None:
    assert parse('[federation]\nradius_km = "none"\n').federation.radius_km is None
    assert parse("", {"LOOPD_FEDERATION__RADIUS_KM": "none"}).federation.radius_km is None


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("LOOPD_DATABASE__READERS", "two"),
        ("LOOPD_DATABASE__READERS", ""),
        ("LOOPD_DATABASE__READERS", "9" * 40),
        ("LOOPD_DATABASE__BUSY_TIMEOUT_S", "NaN"),
        ("LOOPD_DATABASE__BUSY_TIMEOUT_S", "1e999"),
        ("LOOPD_DAEMON__DEVELOPMENT", "1"),
        ("LOOPD_FEDERATION__ALLOWED_NETWORKS", "10.0.0.0/8,10.0.0.1/8"),
        ("LOOPD_FEDERATION__ALLOWED_NETWORKS", "[NaN]"),
        ("LOOPD_SIGNALS__VALUES", "[" * 10_000),
        ("LOOPD_NODE", "munich.loop"),
        ("LOOPD_NODE__NAME", "M\udcfcnchen"),
        ("LOOPD_", "1"),
    ],
)
def test_a_variable_that_is_wrong_is_named(variable: str, value: str) -> None:
    (found,) = problems("", {variable: value})
    assert found.startswith(f"{variable}: ")


def test_what_is_no_toml_is_told_with_its_line() -> None:
    (found,) = problems("[federation\n")
    assert found.startswith(f"munich/loopd.toml:{NODE_LINES + 1}: not TOML: ")


@pytest.mark.parametrize("depth", [150, 300, 100_000])
def test_nesting_without_end_is_refused(depth: int) -> None:
    assert problems(f"[federation]\nallowed_networks = {'[' * depth}{']' * depth}\n")


def test_what_is_no_file_or_no_text_is_told(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"loopd\.toml: No such file"):
        load_settings(tmp_path, {})
    (tmp_path / "loopd.toml").write_bytes(NODE_TOML.encode() + b"# \xff\n")
    with pytest.raises(SettingsError, match=rf"loopd\.toml:{NODE_LINES + 1}: is not UTF-8"):
        load_settings(tmp_path, {})
    (tmp_path / "loopd.toml").write_bytes(b"#" * (1024 * 1024 + 1))
    with pytest.raises(SettingsError, match="larger than"):
        load_settings(tmp_path, {})


def test_relative_paths_start_at_the_directory(tmp_path: Path) -> None:
    (tmp_path / "loopd.toml").write_text(NODE_TOML + '[tls]\nca_file = "ca/ca.pem"\nkey = "/etc/loopd/key.pem"\n')
    tls = load_settings(tmp_path, {}).tls
    assert tls.ca_file == tmp_path / "ca/ca.pem"
    assert tls.key == Path("/etc/loopd/key.pem")
    assert tls.certificate == tmp_path / "tls-cert.pem"


def test_a_long_value_is_shortened_in_the_message() -> None:
    (found,) = problems(f'[log]\nlevel = "{"x" * 5000}"\n')
    assert len(found) < 400


def test_problems_read_well_without_a_setting() -> None:
    assert str(Problem("loopd.toml:3", "", "not TOML")) == "loopd.toml:3: not TOML"


@given(
    name=st.sampled_from(sorted(setting.variable for setting in all_settings().values())),
    value=st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=20),
)
def test_any_text_in_a_variable_is_a_setting_or_a_named_problem(name: str, value: str) -> None:
    places = set()
    try:
        parse("", {name: value})
    except SettingsError as error:
        places = {problem.place for problem in error.problems}
    assert places <= {name}


@given(
    name=st.text(min_size=1, max_size=30),
    values=st.dictionaries(st.sampled_from(["default", "plastic-pet"]), st.decimals(0, 1, places=4)),
)
def test_what_is_written_is_read_again(name: str, values: dict[str, Decimal]) -> None:
    text = render_toml({"node": {**NODE, "name": name}, "signals": {"values": values}})
    settings = parse_settings(text, "loopd.toml", {})
    assert settings.node.name == name
    assert settings.signals.values == values


def test_defaults_are_the_documented_ones() -> None:
    settings = parse()
    assert (settings.api.listen, settings.api.admin_listen) == ("127.0.0.1:8443", "unix")
    assert (settings.federation.announce, settings.federation.radius_km) == ("auto", 1000)
    assert (settings.federation.admission, settings.database.synchronous) == ("manual", "FULL")
    assert settings.daemon.shutdown_timeout_s == 10
    assert json.loads(settings.model_dump_json())["daemon"]["development"] is False
