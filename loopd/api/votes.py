"""`/api/v1/signals/proposals` and `/votes`: the whole life of a vote on signals (§6.3, §12.2)."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from loopd.api.answers import LD_JSON, Answer, entity_answer, json_answer
from loopd.api.idempotency import Write
from loopd.api.node_effects import DOCUMENT_REFUSALS
from loopd.api.request_form import RequestForm
from loopd.api.requests import Request
from loopd.api.routes import LIMIT, Access, Body, Route, Scope, Success
from loopd.api.signals import results_of
from loopd.database import Database, Tx
from loopd.protocol.documents import check_document, refuse_personal_data
from loopd.protocol.limits import VOTE_ROLL_PART_MAX
from loopd.signals.ballots import Choice, RollEntry
from loopd.signals.governance import Vote
from loopd.signals.publication import is_held
from loopd.signals.voting import Voting

_NOUN: Final = "Votes"
_VOTE: Final = "/api/v1/signals/votes/{id}"
_COUNT: Final[Mapping[str, Any]] = {"type": "integer", "minimum": 0}
_TEXT: Final[Mapping[str, Any]] = {"type": "string", "minLength": 1, "maxLength": 500}
_HASH: Final[Mapping[str, Any]] = {"type": "string", "pattern": "^[0-9a-f]{64}$"}
_CREDENTIAL_MAX_CHARACTERS: Final = 60
_BALLOT_MAX_BYTES: Final = 1024


def _closed(required: Sequence[str], **properties: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "required": list(required),
        "additionalProperties": False,
        "properties": properties,
    }


_RESULT: Final = RequestForm(
    _closed(
        ("total_voted", "votes_for", "votes_against", "attestation"),
        total_eligible=_COUNT,
        total_voted=_COUNT,
        votes_for=_COUNT,
        votes_against=_COUNT,
        abstentions=_COUNT,
        status={"enum": ["passed", "failed"]},
        attestation=_TEXT,
    )
)
_REASON: Final = RequestForm(_closed(("reason",), reason=_TEXT))
_BALLOT: Final = RequestForm(
    _closed(
        ("credential", "choice"),
        credential={"type": "string", "minLength": 1, "maxLength": _CREDENTIAL_MAX_CHARACTERS},
        choice={"enum": [choice.value for choice in Choice]},
    )
)
_ENTRY: Final = _closed(("voter", "credential"), voter=_HASH, credential=_HASH)
_ROLL: Final = RequestForm(
    _closed(("entries",), entries={"type": "array", "minItems": 1, "maxItems": VOTE_ROLL_PART_MAX, "items": _ENTRY})
)


class VoteRoutes:
    """Proposals, their votes, and what officers and voters do with them."""

    def __init__(self, voting: Voting, database: Database, write: Write) -> None:
        self._voting = voting
        self._database = database
        self._write = write

    def routes(self) -> list[Route]:
        return [*self._reading(), *self._officers(), self._voters()]

    def _reading(self) -> list[Route]:
        proposal = Success(description="As it stands.", schema="SignalProposal", content_type=LD_JSON)
        vote = Success(description="As it stands.", schema="LoopVote", content_type=LD_JSON)
        return [
            _route("GET", "/api/v1/signals/proposals", self.proposals, "List proposals, newest first", query=(LIMIT,),
                   successes={200: Success(description="Proposals.", schema=results_of("SignalProposal"))}),
            _route("GET", "/api/v1/signals/proposals/{id}", self.proposal, "Read a proposal, its state and its rules",
                   successes={200: proposal}, refusals={404: ("unknown_vote",)}),
            _route("GET", "/api/v1/signals/votes", self.votes, "List votes, newest first", query=(LIMIT,),
                   description="Those whose window has opened. Until a result is there, none of it is told.",
                   successes={200: Success(description="Votes.", schema=results_of("LoopVote"))}),
            _route("GET", _VOTE, self.vote, "Read a vote", successes={200: vote},
                   refusals={404: ("unknown_vote",), 409: ("wrong_state",)}),
            _route("GET", f"{_VOTE}/record", self.record, "Read the signed record of a decided vote",
                   description="Rules, result, anonymous ballots where the node took them, and the configuration that "
                   "came of it. `loopd vote verify` recomputes the outcome from it, offline.",
                   successes={200: Success(description="The record and the node's signature.")},
                   refusals={404: ("unknown_vote",), 409: ("wrong_state",)}),
        ]  # fmt: skip

    def _officers(self) -> list[Route]:
        proposal = {201: Success(description="Proposed.", schema="SignalProposal", content_type=LD_JSON)}
        withdrawn = {200: Success(description="Withdrawn.", schema="SignalProposal", content_type=LD_JSON)}
        vote = {200: Success(description="The vote.", schema="LoopVote", content_type=LD_JSON)}
        size = _closed(("eligible",), eligible=_COUNT)
        enrolled = {200: Success(description="How many voters the roll has.", schema=size)}
        missing = {404: ("unknown_vote",)}
        return [
            _route("POST", "/api/v1/signals/proposals", self.propose, "Propose a change of signals",
                   description="A SignalProposal; beside its fields `vote_id`, `eligible` (how many may vote) and "
                   "`method` (attested, ballots). Its changes pass or fail together, by at most 0.10 each.",
                   access=Scope.ADMIN, body=Body.REQUIRED, request_schema="SignalProposal", successes=proposal,
                   refusals={400: (*DOCUMENT_REFUSALS, *_PROPOSAL_REFUSALS), 403: ("ballots_off",),
                             409: ("category_undecided", "vote_id_taken")}),
            _route("POST", "/api/v1/signals/proposals/{id}/withdraw", self.withdraw,
                   "Take a proposal back before its window opens", access=Scope.ADMIN, successes=withdrawn,
                   refusals={**missing, 409: ("wrong_state",)}),
            _route("POST", f"{_VOTE}/result", self.result, "Enter the municipality's result, as its officer",
                   description="It is kept as attested. Sums are checked; the place of an impossible one is named.",
                   access=Scope.ADMIN, body=Body.REQUIRED, request_schema=_RESULT.schema, successes=vote,
                   refusals={**missing, 400: ("impossible_tally", "personal_data"),
                             409: ("wrong_state", "counted_here")}),
            _route("POST", f"{_VOTE}/certify", self.certify, "Make the outcome final",
                   description="Where it passed, the new configuration begins now.", access=Scope.ADMIN,
                   successes=vote, refusals={**missing, 409: ("wrong_state", "appeals_open", "period_limit")}),
            _route("POST", f"{_VOTE}/annul", self.annul, "End a vote without an outcome", access=Scope.ADMIN,
                   description="As after an appeal that was upheld. The reason is published.",
                   body=Body.REQUIRED, request_schema=_REASON.schema, successes=vote,
                   refusals={**missing, 400: ("personal_data",), 409: ("wrong_state",)}),
            _route("POST", f"{_VOTE}/roll", self.enrol, "Add voters to the roll", access=Scope.ADMIN,
                   description="Hashes only, before the window opens; see docs/signals.md.", repeatable=False,
                   body=Body.REQUIRED, request_schema=_ROLL.schema, successes=enrolled,
                   refusals={**missing, 409: ("wrong_state", "counted_elsewhere", "already_on_roll", "roll_full")}),
        ]  # fmt: skip

    def _voters(self) -> Route:
        receipt = _closed(("credential", "signature"), credential=_HASH, signature={"type": "string"})
        return _route(
            "POST",
            f"{_VOTE}/ballots",
            self.cast,
            "Cast a ballot",
            description="The receipt says that a ballot was recorded for the credential, not which. This request is "
            "in no log.",
            body=Body.REQUIRED,
            body_max_bytes=_BALLOT_MAX_BYTES,
            request_schema=_BALLOT.schema,
            successes={201: Success(description="Recorded.", schema=receipt)},
            refusals={
                403: ("unknown_credential",),
                404: ("unknown_vote",),
                409: ("window_closed", "already_voted", "counted_elsewhere"),
            },
            unlogged=True,
        )

    # Reading

    async def proposals(self, request: Request) -> Answer:
        found = self._voting.newest(self._database.points, request.limit)
        return json_answer({"results": [self._voting.proposal_view(vote) for vote in found]})

    async def proposal(self, request: Request) -> Answer:
        vote = self._voting.require(self._database.points, request.parameters["id"])
        return entity_answer(self._voting.proposal_view(vote))

    async def votes(self, request: Request) -> Answer:
        found = self._voting.newest(self._database.points, request.limit)
        return json_answer({"results": [self._voting.vote_view(vote) for vote in found if is_held(vote)]})

    async def vote(self, request: Request) -> Answer:
        return entity_answer(
            self._voting.vote_view(self._voting.require(self._database.points, request.parameters["id"]))
        )

    async def record(self, request: Request) -> Answer:
        return json_answer(self._voting.record(self._database.points, request.parameters["id"]))

    # What officers do

    async def propose(self, request: Request) -> Answer:
        document = check_document(request.body, "SignalProposal")

        def unit(tx: Tx) -> Answer:
            vote = self._voting.propose(tx, document)
            location = {"Location": f"/api/v1/signals/proposals/{vote.vote_id}"}
            return entity_answer(self._voting.proposal_view(vote), 201, location)

        return await self._write(request, unit)

    async def withdraw(self, request: Request) -> Answer:
        def unit(tx: Tx) -> Answer:
            return entity_answer(self._voting.proposal_view(self._voting.withdraw(tx, request.parameters["id"])))

        return await self._write(request, unit)

    async def result(self, request: Request) -> Answer:
        stated = _RESULT.read(request.body)
        refuse_personal_data(stated)
        return await self._change(request, lambda tx, vote_id: self._voting.enter_result(tx, vote_id, stated))

    async def certify(self, request: Request) -> Answer:
        return await self._change(request, self._voting.certify)

    async def annul(self, request: Request) -> Answer:
        stated = _REASON.read(request.body)
        refuse_personal_data(stated)
        return await self._change(request, lambda tx, vote_id: self._voting.annul(tx, vote_id, stated["reason"]))

    async def enrol(self, request: Request) -> Answer:
        entries = [_hashes(entry) for entry in _ROLL.read(request.body)["entries"]]

        def unit(tx: Tx) -> Answer:
            return json_answer({"eligible": self._voting.enrol(tx, request.parameters["id"], entries)})

        return await self._database.write(unit)

    async def _change(self, request: Request, change: Callable[[Tx, str], Vote]) -> Answer:
        def unit(tx: Tx) -> Answer:
            return entity_answer(self._voting.vote_view(change(tx, request.parameters["id"])))

        return await self._write(request, unit)

    # What voters do

    async def cast(self, request: Request) -> Answer:
        stated = _BALLOT.read(request.body)
        credential, choice = stated["credential"], stated["choice"]
        vote_id = request.parameters["id"]
        receipt = await self._database.write(lambda tx: self._voting.cast(tx, vote_id, credential, Choice(choice)))
        return json_answer({"credential": receipt.credential, "signature": receipt.signature}, 201)


_PROPOSAL_REFUSALS: Final = (
    "unknown_category",
    "repeated_category",
    "bad_signal",
    "no_change",
    "change_too_large",
    "bad_time",
    "bad_vote_id",
    "bad_eligible",
    "bad_method",
    "other_node",
)


def _route(method: str, path: str, handler: Any, summary: str, **extras: Any) -> Route:
    extras.setdefault("access", Access.OPEN)
    return Route(method=method, path=path, handler=handler, noun=_NOUN, summary=summary, **extras)


def _hashes(entry: Mapping[str, str]) -> RollEntry:
    return RollEntry(bytes.fromhex(entry["voter"]), bytes.fromhex(entry["credential"]))
