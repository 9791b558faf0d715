import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession
from structlog.testing import capture_logs

from loopd.api.access import Plane
from loopd.api.idempotency import IdempotentWriter
from loopd.api.signals import SignalRoutes
from loopd.api.tokens import TokenStore
from loopd.api.votes import VoteRoutes
from loopd.protocol.documents import check_document, dump_json, read_json
from loopd.signals.ballots import Receipt, credential_hash, receipt_holds
from loopd.signals.verification import verify_record
from tests.registry_api import HttpAnswer
from tests.served import BOTH_PLANES, served
from tests.voting_support import DAY_MS, HOUR_MS, KEY, NODE, START_MS, VotingNode, proposal, voting_node

PET = {"plastic-pet": ("0.20", "0.30")}
VOTE = "/api/v1/signals/votes/2026-06-vote-1"
RESULT = {"total_voted": 100, "votes_for": 60, "votes_against": 40, "attestation": "Minutes"}


class VotingApi:
    """A client of a node's votes; a POST bears an admin token unless it is a voter's."""

    def __init__(self, node: VotingNode, session: ClientSession, token: str) -> None:
        self.node = node
        self.bases: dict[Plane, str] = {}
        self._session = session
        self._token = {"Authorization": f"Bearer {token}"}

    async def get(self, path: str) -> HttpAnswer:
        return await self._send("GET", Plane.PUBLIC, path, None, {})

    async def post(self, path: str, value: Any = None, *, officer: bool = True) -> HttpAnswer:
        return await self._send("POST", Plane.PUBLIC, path, value, self._token if officer else {})

    async def admin(self, path: str) -> HttpAnswer:
        return await self._send("GET", Plane.ADMIN_ADDRESS, path, None, self._token)

    async def propose(self, **extras: Any) -> HttpAnswer:
        stated = proposal(START_MS + HOUR_MS, START_MS + 2 * HOUR_MS, PET, **extras)
        return await self.post("/api/v1/signals/proposals", stated)

    async def pass_hours(self, hours: int) -> None:
        self.node.clock.advance(hours * HOUR_MS)
        await self.node.tick()

    async def _send(self, method: str, plane: Plane, path: str, value: Any, headers: dict[str, str]) -> HttpAnswer:
        body = None if value is None else dump_json(value)
        sent = headers if body is None else {"Content-Type": "application/json", **headers}
        async with self._session.request(method, self.bases[plane] + path, data=body, headers=sent) as answer:
            return HttpAnswer(answer.status, answer.headers, await answer.read())


@asynccontextmanager
async def voting_api(directory: Path, **settings: Any) -> AsyncIterator[VotingApi]:
    async with voting_node(directory, **settings) as node, ClientSession() as session:
        store = TokenStore(node.database, node.clock)
        token = await node.write(lambda tx: store.create(tx, ["admin"], 31_536_000, START_MS))
        client = VotingApi(node, session, token.text)
        write = IdempotentWriter(node.database, node.clock).write
        routes = [
            *SignalRoutes(node.signals, node.database).routes(),
            *VoteRoutes(node.voting, node.database, write).routes(),
        ]
        async with served(routes, node.clock, store, planes=BOTH_PLANES) as client.bases:
            yield client


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[VotingApi]:
    async with voting_api(tmp_path) as client:
        yield client


def reason(answer: HttpAnswer) -> str:
    found: str = json.loads(answer.body)["error"]["details"]["reason"]
    return found


async def test_the_life_of_a_vote(api: VotingApi) -> None:
    proposed = await api.propose()
    assert (proposed.status, proposed.headers["Content-Type"]) == (201, "application/ld+json")
    check_document(proposed.body, "SignalProposal")
    assert proposed.headers["Location"] == "/api/v1/signals/proposals/2026-06-vote-1"
    assert json.loads((await api.get(proposed.headers["Location"])).body)["rules"] is None
    assert reason(await api.get(VOTE)) == "wrong_state"
    assert json.loads((await api.get("/api/v1/signals/votes")).body) == {"results": []}
    await api.pass_hours(1)
    opened = json.loads((await api.get("/api/v1/signals/proposals")).body)["results"]
    assert opened[0]["rules"] == {
        "method": "attested",
        "total_eligible": 100,
        "quorum": "0",
        "threshold": "1/2",
        "appeals_s": 0,
    }
    assert reason(await api.post(f"{VOTE}/result", RESULT)) == "wrong_state"
    await api.pass_hours(1)
    impossible = await api.post(f"{VOTE}/result", {**RESULT, "total_voted": 101})
    assert json.loads(impossible.body)["error"]["details"]["errors"][0]["pointer"] == "/total_voted"
    counted = await api.post(f"{VOTE}/result", RESULT)
    assert json.loads(counted.body)["results"]["status"] == "pending"
    certified = await api.post(f"{VOTE}/certify")
    check_document(certified.body, "LoopVote")
    assert json.loads(certified.body)["results"]["status"] == "passed"
    signals = await api.get("/api/v1/signals")
    check_document(signals.body, "LoopSignalConfig")
    assert json.loads(signals.body)["signals"]["plastic-pet"] == 0.3
    before = await api.get("/api/v1/signals?at=2026-06-02T11:59:59%2B00:00")
    assert json.loads(before.body)["signals"]["plastic-pet"] == 0.2
    history = json.loads((await api.get("/api/v1/signals/history")).body)["results"]
    assert [entry["signals"]["plastic-pet"] for entry in history] == [0.3, 0.2]
    assert verify_record(read_json((await api.get(f"{VOTE}/record")).body)).holds
    votes = json.loads((await api.get("/api/v1/signals/votes")).body)["results"]
    assert [vote["vote_id"] for vote in votes] == ["2026-06-vote-1"]


async def test_withdrawing_and_annulling(api: VotingApi) -> None:
    await api.propose()
    withdrawn = await api.post("/api/v1/signals/proposals/2026-06-vote-1/withdraw")
    assert json.loads(withdrawn.body)["status"] == "withdrawn"
    await api.propose()
    await api.pass_hours(1)
    path = VOTE.replace("vote-1", "vote-2")
    personal = await api.post(f"{path}/annul", {"reason": "ask erika.mustermann@example.org"})
    assert reason(personal) == "personal_data"
    annulled = await api.post(f"{path}/annul", {"reason": "The roll was wrong"})
    assert json.loads(annulled.body)["state"] == "annulled"


@pytest.mark.parametrize("at", ["yesterday", "2026-06-02", "0001-01-01T00:00:00%2B10:00"])
async def test_a_moment_that_is_none(api: VotingApi, at: str) -> None:
    assert reason(await api.get(f"/api/v1/signals?at={at}")) == "bad_time"


async def test_only_an_officer_decides(api: VotingApi) -> None:
    await api.propose()
    for path in (f"{VOTE}/certify", f"{VOTE}/roll", f"{VOTE}/result", f"{VOTE}/annul", "/api/v1/signals/proposals"):
        assert (await api.post(path, {}, officer=False)).status == 401


@pytest.mark.parametrize(
    ("path", "body", "pointer"),
    [
        ("result", {"total_voted": 1, "votes_for": 1, "attestation": "x"}, "/votes_against"),
        ("result", {**RESULT, "attestation": ""}, "/attestation"),
        ("result", {**RESULT, "attestation": 1}, "/attestation"),
        ("result", {**RESULT, "sum": 1}, "/sum"),
        ("annul", {"reason": "x" * 501}, "/reason"),
        ("annul", [], ""),
        ("roll", {"entries": []}, "/entries"),
        ("roll", {"entries": {}}, "/entries"),
        ("roll", {"entries": [1]}, "/entries/0"),
        ("roll", {"entries": [{"voter": "00" * 32, "credential": "0" * 63}]}, "/entries/0/credential"),
        ("roll", {"entries": [{"voter": "zz" * 32, "credential": "00" * 32}]}, "/entries/0/voter"),
        ("ballots", {"credential": "", "choice": "for"}, "/credential"),
        ("ballots", {"credential": "A" * 61, "choice": "for"}, "/credential"),
        ("ballots", {"credential": "A", "choice": "perhaps"}, "/choice"),
        ("ballots", {"credential": "A", "choice": 1}, "/choice"),
    ],
)
async def test_bodies_that_are_refused_name_the_place(api: VotingApi, path: str, body: Any, pointer: str) -> None:
    answer = await api.post(f"{VOTE}/{path}", body)
    assert answer.status == 400
    assert json.loads(answer.body)["error"]["details"]["errors"][0]["pointer"] == pointer


async def test_a_ballot_leaves_no_trace_but_itself(api: VotingApi) -> None:
    await api.propose(method="ballots")
    credentials = [f"SECRET-CREDENTIAL-{number}" for number in range(3)]
    entries = [
        {"voter": f"{number:064x}", "credential": credential_hash("2026-06-vote-1", credential).hex()}
        for number, credential in enumerate(credentials)
    ]
    enrolled = await api.post(f"{VOTE}/roll", {"entries": entries})
    assert json.loads(enrolled.body) == {"eligible": 3}
    await api.pass_hours(1)
    tables = [
        row["name"]
        for row in await api.node.database.all("SELECT name FROM sqlite_master WHERE type = 'table'")
        if row["name"] not in ("ballot", "vote_turnout")
    ]

    async def counts() -> dict[str, int]:
        found = {}
        for table in tables:
            row = await api.node.database.one(f"SELECT count(*) AS number FROM {table}")
            found[table] = 0 if row is None else row["number"]
        return found

    before = await counts()
    ballot = {"credential": credentials[0], "choice": "for"}
    with capture_logs() as lines:
        cast = await api.post(f"{VOTE}/ballots", ballot, officer=False)
        again = await api.post(f"{VOTE}/ballots", ballot, officer=False)
        strange = await api.post(f"{VOTE}/ballots", {**ballot, "credential": "OTHER"}, officer=False)
        await api.post(f"{VOTE}/certify")
    # The officer's request is in the log, the voters' are not.
    assert [line["route"] for line in lines if line["event"] == "request"] == [
        "POST /api/v1/signals/votes/{id}/certify"
    ]
    assert await counts() == before
    assert (cast.status, again.status, strange.status) == (201, 409, 403)
    receipt = json.loads(cast.body)
    assert receipt_holds(KEY.public, NODE, "2026-06-vote-1", Receipt(**receipt))
    assert json.loads(again.body)["error"]["details"]["receipt"] == receipt
    await api.pass_hours(1)
    assert reason(await api.post(f"{VOTE}/ballots", ballot, officer=False)) == "window_closed"
    assert reason(await api.post(f"{VOTE}/certify")) == "appeals_open"
    api.node.clock.advance(7 * DAY_MS)
    assert (await api.post(f"{VOTE}/certify")).status == 200
    record = read_json((await api.get(f"{VOTE}/record")).body)
    assert verify_record(record).holds
    assert record["record"]["turnout"] == [receipt["credential"]]


async def test_ballots_are_off_by_default(tmp_path: Path) -> None:
    async with voting_api(tmp_path, ballots=False) as api:
        answer = await api.propose(method="ballots")
        assert (answer.status, reason(answer)) == (403, "ballots_off")


async def test_what_peers_publish_is_shown_to_the_operator(api: VotingApi) -> None:
    assert json.loads((await api.admin("/admin/v1/signals/peers")).body) == {"peers": []}
    assert (await api.get("/admin/v1/signals/peers")).status == 404
