"""The contexts' terms, and that contexts and schemas are found wherever loopd is installed from."""

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from loopd.protocol.contexts import (
    HOSTS,
    KNOWN_CONTEXTS,
    VERSIONS,
    context_document,
    context_url,
    schema_url,
    vocabulary_iri,
)
from loopd.protocol.published_files import published_files
from loopd.protocol.schemas import ENTITIES_BY_FILE

REPOSITORY = Path(__file__).parents[3]
DATE_TIME = "http://www.w3.org/2001/XMLSchema#dateTime"


def terms(version):
    return {name: term for name, term in context_document(version)["@context"].items() if not name.startswith("@")}


@pytest.mark.parametrize(("version", "count", "iris", "moments"), [("0.1.1", 68, 5, 9), ("0.2.0", 187, 16, 13)])
def test_the_terms_of_a_version_are_counted(version, count, iris, moments):
    typed = [term["@type"] for term in terms(version).values() if isinstance(term, dict)]
    assert (len(terms(version)), typed.count("@id"), typed.count(DATE_TIME)) == (count, iris, moments)


@pytest.mark.parametrize("version", VERSIONS)
def test_every_term_is_the_vocabulary_s_own_name_but_the_identifier(version):
    context = context_document(version)["@context"]
    assert (context["@version"], context["@vocab"]) == (1.1, vocabulary_iri())
    for name, term in terms(version).items():
        iri = term["@id"] if isinstance(term, dict) else term
        assert iri == ("@id" if name == "id" else vocabulary_iri() + name)


def test_the_newer_version_has_every_term_of_the_older():
    assert terms("0.1.1").items() <= terms("0.2.0").items()


def test_four_contexts_are_known_and_the_newer_one_is_emitted():
    paths = {f"/projects/loop-protocol/contexts/loop-v{version}.jsonld" for version in ("0.1.1", "0.2.0")}
    hosts = ("local-loop-io.github.io", "localloop.urbnia.com")
    assert set(KNOWN_CONTEXTS) == {f"https://{host}{path}" for host in hosts for path in paths}
    assert context_url() == "https://local-loop-io.github.io/projects/loop-protocol/contexts/loop-v0.2.0.jsonld"
    assert {context_url(host) for host in HOSTS} < set(KNOWN_CONTEXTS)
    assert schema_url("offer", HOSTS[1]) == (
        "https://localloop.urbnia.com/projects/loop-protocol/schemas/v0.2.0/offer.schema.json"
    )


def test_a_checkout_has_them_at_its_top():
    assert Path(str(published_files("schemas"))) == REPOSITORY / "schemas"
    assert Path(str(published_files("contexts"))) == REPOSITORY / "contexts"


FIND = """
import json, loopd
from loopd.protocol.contexts import VERSIONS, context_document
from loopd.protocol.schemas import ENTITIES, is_valid
print(json.dumps([loopd.__file__, [len(context_document(v)["@context"]) for v in VERSIONS],
                  [is_valid(e, {}) for e in sorted(ENTITIES)]]))
"""


def find_from(directory, path):
    """What a fresh interpreter finds that imports loopd as `path` says and stands in another directory."""
    command = [sys.executable, "-c", f"import sys; sys.path[:0] = {path!r}\n{FIND}"]
    result = subprocess.run(command, cwd=directory, capture_output=True, text=True, timeout=60, check=True)
    return json.loads(result.stdout)


def test_an_editable_install_finds_them(tmp_path):
    where, counts, verdicts = find_from(tmp_path, [])
    assert Path(where).parent == REPOSITORY / "loopd"
    assert (counts, any(verdicts)) == ([70, 189], False)


def test_a_wheel_carries_them(tmp_path):
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(build, cwd=REPOSITORY, capture_output=True, timeout=120, check=True)
    (wheel,) = tmp_path.glob("*.whl")
    installed = tmp_path / "installed"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(installed)
    assert {path.name for path in (installed / "loopd/_data/schemas").iterdir()} == {
        f"{name}.schema.json" for name in ENTITIES_BY_FILE
    }
    where, counts, verdicts = find_from(tmp_path, [str(installed)])
    assert Path(where).parent == installed / "loopd"
    assert (counts, any(verdicts)) == ([70, 189], False)
    # The same from the archive itself, which has no files to open.
    assert find_from(tmp_path, [str(wheel)])[1:] == [counts, verdicts]
