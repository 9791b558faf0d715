"""What the documentation says of files, links, settings, commands and routes is so."""

import re
import shlex
from pathlib import Path

import click
import pytest

from loopd.cli.root import COMMANDS, commands
from loopd.events.rules import EventKind
from loopd.protocol.documents import check_document
from loopd.protocol.schemas import ENTITIES
from loopd.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
EXAMPLES = sorted((ROOT / "docs" / "examples").glob("*.json"))
TEXT = {page: page.read_text(encoding="utf-8") for page in PAGES}
OPERATING = TEXT[ROOT / "docs" / "operating.md"]

LINK = re.compile(r"(?<!!)\[[^\]]+\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
FENCED = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)


def anchors(text: str) -> set[str]:
    """The anchors that a page's headings get on the usual hosts."""
    titles = HEADING.findall(FENCED.sub("", text))
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_link_inside_the_project_leads_somewhere(page: Path) -> None:
    for target in LINK.findall(TEXT[page]):
        path, _, anchor = target.partition("#")
        if path.startswith("https://"):
            continue
        there = (page.parent / path).resolve() if path else page
        assert there.is_relative_to(ROOT), target
        assert there.exists(), target
        if anchor:
            assert anchor in anchors(TEXT[there]), target


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_file_that_is_named_is_there(page: Path) -> None:
    named = re.findall(r"`((?:loopd|tests|scripts|docs|config|systemd|schemas|bench)/[\w./-]+)`", TEXT[page])
    assert [name for name in named if "NNNN" not in name and not (ROOT / name).exists()] == []


def test_every_page_is_reached_from_the_readme() -> None:
    reached = {(ROOT / target.partition("#")[0]).resolve() for target in LINK.findall(TEXT[ROOT / "README.md"])}
    expected = {page for page in PAGES if page.name not in ("README.md", "CHANGELOG.md", "SECURITY.md")}
    assert expected - reached == set()


@pytest.mark.parametrize("example", EXAMPLES, ids=name_of)
def test_every_example_is_a_valid_document_that_some_page_uses(example: Path) -> None:
    assert check_document(example.read_bytes(), ENTITIES).type in ENTITIES
    assert any(name_of(example) in text for text in TEXT.values())


def test_no_page_uses_an_example_that_is_not_there() -> None:
    used = {name for text in TEXT.values() for name in re.findall(r"docs/examples/[\w-]+\.json", text)}
    assert used == {name_of(example) for example in EXAMPLES}


def test_every_setting_is_on_its_page_and_every_setting_that_is_spoken_of_exists() -> None:
    keys = {
        f"{section}.{key}"
        for section, field in Settings.model_fields.items()
        for key in getattr(field.annotation, "model_fields")  # noqa: B009
    }
    page = TEXT[ROOT / "docs" / "settings.md"]
    assert {key for key in keys if f"### `{key}`" not in page} == set()
    sections = "|".join(Settings.model_fields)
    for other, text in TEXT.items():
        spoken_of = set(re.findall(rf"`((?:{sections})\.[a-z_]+)(?: = [^`]*)?`", text))
        spoken_of = {key for key in spoken_of if not key.endswith((".toml", ".py", ".key", ".db", ".lock", ".service"))}
        assert spoken_of - set(EventKind) <= keys, other.name


def test_every_command_is_on_its_page_and_every_command_that_is_spoken_of_exists() -> None:
    page = TEXT[ROOT / "docs" / "commands.md"]
    for name in COMMANDS:
        assert f"## loopd {name}" in page, name
    typed = re.compile(r"(?:^ +|`)(?:[\w./]+/)?loopd ([a-z][a-z-]*)", re.MULTILINE)
    spoken_of = {name for text in TEXT.values() for name in typed.findall(text)}
    assert spoken_of >= {"init", "run", "peer", "token", "backup"}
    assert spoken_of <= set(COMMANDS), spoken_of - set(COMMANDS)


def typed_commands(text: str) -> list[list[str]]:
    """What follows `loopd` on the lines of a page that are to be typed, up to where a shell ends the command."""
    typed = "".join(re.findall(r"^ {4}(.*\n)", FENCED.sub("", text), re.MULTILINE)).replace("\\\n", " ")
    commands = re.findall(r"^(?:.*[ (])?(?:\.venv/bin/)?loopd ([a-z].*)", typed, re.MULTILINE)
    return [shlex.split(re.split(r"[;)]|\s(?:2?>|[|&#])", command)[0]) for command in commands]


def parse(arguments: list[str]) -> None:
    """What click makes of a command line, without carrying it out."""
    command: click.Command = commands
    context: click.Context | None = None
    while isinstance(command, click.Group):
        context = click.Context(command, parent=context, info_name=command.name)
        name, *arguments = arguments
        following = command.get_command(context, name)
        assert following is not None, name
        command = following
    command.make_context(command.name, arguments, parent=context)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_command_that_is_to_be_typed_is_understood(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "maria-public.pem").write_text("-----BEGIN PUBLIC KEY-----")
    for arguments in typed_commands(TEXT[page]):
        try:
            parse(
                ["550e8400-e29b-41d4-a716-446655440000" if word in ("ID", "$payment") else word for word in arguments]
            )
        except click.UsageError as error:
            pytest.fail(f"loopd {shlex.join(arguments)}: {error.format_message()}")


def test_commands_to_be_typed_are_found() -> None:
    lines = ["A=1 .venv/bin/loopd run munich 2>log &", "x=$(loopd token create D \\", "  --ttl 60 | cut -f1)  # why"]
    text = "".join(f"    {line}\n" for line in lines)
    assert typed_commands(text) == [["run", "munich"], ["token", "create", "D", "--ttl", "60"]]
    assert len(typed_commands(OPERATING)) > 30


def test_every_event_that_the_guide_explains_is_one_that_the_code_logs() -> None:
    table = OPERATING.partition("| event | fields | says |")[2].partition("\n\n")[0]
    events = {event for row in table.splitlines()[2:] for event in re.findall(r"`([a-z_]+)`", row.split("|")[1])}
    source = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "loopd").rglob("*.py"))
    logged = set(re.findall(r"""log\.?\w*\(\s*"([a-z_]+)\"""", source))
    levels = {"debug", "info", "warning", "error"}
    assert events - levels
    assert events - levels <= logged


def test_every_kind_of_event_is_explained_and_every_one_that_is_explained_exists() -> None:
    table = OPERATING.partition("| kind | subject | data |")[2].partition("\n\n")[0]
    explained = [kind for row in table.splitlines()[2:] for kind in re.findall(r"`([a-z.]+)`", row.split("|")[1])]
    assert sorted(explained) == sorted(EventKind)


def test_the_example_that_withdraws_a_batch_names_the_one_of_the_other_example() -> None:
    folder = ROOT / "docs" / "examples"
    update = check_document((folder / "withdraw-spent-grain.json").read_bytes(), "MaterialStatusUpdate").value
    grain = check_document((folder / "spent-grain.json").read_bytes(), "MaterialDNA").value
    assert update["material_id"] == grain["id"]
