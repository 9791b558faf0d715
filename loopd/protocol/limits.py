"""The ceilings on everything that comes from outside, in one place. What happens at each is said beside it."""

from decimal import Decimal

# Documents: beyond these the answer is 413 or 400, before any further work.
DOCUMENT_MAX_BYTES = 1024 * 1024
JSON_MAX_DEPTH = 64
# A stranger's document is read before its signature is checked, for the key stands in it: so it is kept small.
HANDSHAKE_MAX_BYTES = 16 * 1024
# Numbers: what a double reaches, since that is what most readers of JSON hold, with digits to spare. Beyond: 400.
NUMBER_MAX_CHARACTERS = 100
NUMBER_MAX_EXPONENT = 308
# Violations listed in one refusal; who sent more of them mends these first.
VIOLATIONS_MAX = 100
# A document of more values than this has only its first violation explained: listing all would hold up the others.
EXPLAINED_VALUES_MAX = 2_000

# JSON-LD in another form than the published one goes through a general processor, at a hundred times the cost. Beyond:
# 400 with `bad_json_ld`.
JSON_LD_MAX_BYTES = 64 * 1024
JSON_LD_MAX_CONTEXTS = 16
JSON_LD_MAX_TERMS = 256

# Lists: a page size outside these bounds is 400.
LIST_LIMIT_MIN = 1
LIST_LIMIT_MAX = 100
LIST_LIMIT_DEFAULT = 20

# Amounts: more than a city will ever move, and far inside 64-bit integers of hundredths. Beyond: 400.
AMOUNT_MAX_LC = Decimal(10) ** 15

# Quantities are compared as whole billionths of their dimension's base unit. Beyond: 400.
QUANTITY_MAX = Decimal(10) ** 15
QUANTITY_MAX_FRACTION_DIGITS = 9

# A distance that somebody states: half the equator is the farthest a great circle goes, roads are longer. Beyond: 400.
DISTANCE_MAX_KM = Decimal(100_000)

# Node requests (§9.2): an older or newer timestamp is refused, both ends are included.
REQUEST_CLOCK_TOLERANCE_MS = 300_000
# A timestamp may be that far ahead and then that far behind, so a repeat can arrive for twice the tolerance.
REPLAY_MEMORY_MS = 2 * REQUEST_CLOCK_TOLERANCE_MS

# Floods (§9.3).
FLOOD_TTL_MAX = 3
ANNOUNCEMENT_MAX_VALIDITY_MS = 7 * 24 * 3600 * 1000
PLAIN_ANNOUNCEMENT_VALIDITY_MS = 24 * 3600 * 1000
# How long an id is remembered after its message ended, so that a late copy is still known.
SEEN_GRACE_MS = 600_000
# Announcements worked on at once, of all peers and of one; the next ones wait, each peer in turn.
ANNOUNCEMENTS_AT_ONCE_MAX = 64
ANNOUNCEMENTS_PER_PEER_AT_ONCE_MAX = 16
# Announcements of one peer that wait, and their bytes. Beyond: 429 `over_share`, to that peer alone.
ANNOUNCEMENTS_WAITING_PER_PEER_MAX = 64
ANNOUNCEMENTS_WAITING_PER_PEER_MAX_BYTES = 2 * 1024 * 1024
# Statements of one node about its keys that are taken in a day. Beyond: 403 `too_many_statements`.
KEY_STATEMENTS_PER_NODE_PER_DAY_MAX = 10
# Former keys of a node that a signature is tried with, the newest; what an older one signed holds no more.
FORMER_KEYS_TRIED_MAX = 8
# A handshake waits this long for the operator, from the first time it was asked; then its place is free again.
HANDSHAKE_CLAIM_MAX_MS = 30 * 24 * 3600 * 1000
# Decisions on messages that are kept for `explain`; the oldest make room.
EXPLAINED_DECISIONS_MAX = 100_000

# Repair between two nodes (§9.4). A message fits a frame of the link; the protocol knows no limit below the least one.
RECONCILIATION_FRAME_MAX_BYTES = 240 * 1024
RECONCILIATION_FRAME_MIN_BYTES = 4096
# Ids that one comparison may find lacking, where nothing else is set. Beyond: a protocol error.
RECONCILIATION_NEED_MAX = 100_000
# Messages of one comparison: an honest one needs a few, and one for each frame of ids. Beyond: a protocol error.
RECONCILIATION_MESSAGES_MAX = 5_000
# TTLs in one message, 32 KiB of them. Beyond: a protocol error.
RECONCILIATION_TTLS_MAX = 128 * 1024

# The highest revision a subject can reach, exact in every JSON reader and in the database. Beyond: 400.
REVISION_MAX = 2**53 - 1

# Public keys: an Ed25519 key takes 113 characters of PEM; the rest is room for line ends. Beyond: refused.
PUBLIC_KEY_PEM_MAX_CHARACTERS = 256

# A peer that asks for patience gets at most this much; it must not silence itself for good by one header.
RETRY_AFTER_MAX_MS = 15 * 60 * 1000

# The API's door. An id in a path is never longer; a longer one names nothing: 404.
PATH_ID_MAX_CHARACTERS = 300
# A query string with more parameters is 400.
QUERY_MAX_PARAMETERS = 20
# Bodies being read or handled, all connections together. Beyond: 503 overloaded.
BODIES_MAX_BYTES = 64 * 1024 * 1024
# Clients whose requests are counted; beyond, the one that was counted first is forgotten.
RATE_LIMITED_CLIENTS_MAX = 20_000
# Idempotency keys: length in characters (else 400), memory, and how many of one caller; beyond, its oldest goes.
IDEMPOTENCY_KEY_MAX_CHARACTERS = 255
IDEMPOTENCY_MEMORY_MS = 24 * 3600 * 1000
IDEMPOTENCY_KEYS_MAX = 10_000
# API tokens (§10.2: they expire), their life in seconds; outside these bounds: 400. And how many are kept: 409.
TOKEN_TTL_MIN_S = 60
TOKEN_TTL_MAX_S = 366 * 24 * 3600
TOKEN_TTL_DEFAULT_S = 3600
TOKENS_MAX = 1000

# Calls to other nodes. A pool that is full makes the next call wait, within its own time.
DIAL_CONNECTIONS_MAX = 128
DIAL_CONNECTIONS_PER_HOST_MAX = 4
# Links that this node dialled and keeps: as many as it may have peers.
LINKS_DIALLED_MAX = 1_000
# Below the time for which usual servers keep an idle connection, so that a call seldom meets one that just closed.
DIAL_IDLE_CONNECTION_S = 30.0
# One address that does not answer must not use up the time for the others of its name.
DIAL_CONNECT_TIMEOUT_S = 5.0
# Name lookups under way, each of which holds a thread.
DIAL_LOOKUPS_MAX = 16

# Calls to endpoints that strangers name. Beyond these the stranger is answered 429.
CALLBACKS_PER_HOST_PER_MINUTE = 10
CALLBACKS_AT_ONCE_MAX = 8
CALLBACK_HOSTS_MAX = 1000

# A page of records ends with the one whose document brings it here: a list is not a way to ask for 100 MiB at once.
LIST_MAX_BYTES = 1024 * 1024

# The exchange. Live bids on one subject: when they are full, expired ones make room; beyond that, 503.
LIVE_BIDS_PER_SUBJECT_MAX = 200
# Replaced bids of one bidder on one subject that are kept to look at; older ones are forgotten.
REPLACED_BIDS_KEPT = 10
# How long a bid may be valid, from now; beyond: 400.
BID_MAX_VALIDITY_S = 30 * 24 * 3600
# How long a node that bid is tried to be told what became of its bid.
BID_STATUS_DELIVERY_MS = 7 * 24 * 3600 * 1000

# Routing. Places from which a ranking keeps the distances to all nodes; beyond, they are computed anew.
RANKED_ORIGINS_REMEMBERED = 64
# Destinations of one question for a LoopCost; beyond: 400.
LOOP_COST_DESTINATIONS_MAX = 5_000
# A page of a route, and the nodes without a rank that it names; the answer tells how many there are.
ROUTE_LIMIT_MAX = 100
UNRANKED_NAMED_MAX = 100
# Demands that a route is compared with, the oldest first; beyond, they are not shown.
ROUTE_DEMANDS_MAX = 2_000
# Batches, and demands, of one plan; beyond: 400. Its process's time, beyond which the answer is 503, and its memory.
PLAN_SIDE_MAX = 500
PLAN_MAX_S = 20.0
PLAN_MEMORY_MAX_BYTES = 4 * 1024**3
# Nodes that wait for their signals to be fetched; beyond, they are left for the next question.
SIGNALS_WAITING_MAX = 1_000
# The least time between two attempts at one node's signals, however often somebody asks for a cost.
SIGNALS_RETRY_MS = 60_000

# The mirror. One MirrorUpdate, so that a few fit a page; a larger document is refused where it comes in: 400.
MIRROR_UPDATE_MAX_BYTES = 256 * 1024
# An Offer, Match, Transfer or MaterialTransaction as it comes in. The rest of a MirrorUpdate is for what is around it
# and for what later versions say (a reason, times): one that could not be told would keep a Match from ending.
DEAL_DOCUMENT_MAX_BYTES = 240 * 1024
# A page of versions ends with the one that brings it here.
MIRROR_PAGE_MAX_BYTES = 768 * 1024
# Pages of one list that are read at one go; the next look goes on.
MIRROR_PAGES_MAX = 1_000
# Entities of one node that are held, and their size. Beyond: 503 `too_many_mirrored`.
MIRRORED_PER_NODE_MAX = 100_000
MIRRORED_PER_NODE_MAX_BYTES = 256 * 1024 * 1024
# Entities of one node of which versions are known to be missing; what is beyond, the next comparison finds.
MIRROR_GAPS_PER_NODE_MAX = 10_000
# How long the other side is tried to be told a version; later it finds it by comparing.
MIRROR_DELIVERY_MS = 7 * 24 * 3600 * 1000
# How long the seller's node is tried to be asked for a status, and for longer than that knows a repeat.
STATUS_REQUEST_DELIVERY_MS = 24 * 3600 * 1000
STATUS_REQUEST_MEMORY_MS = 2 * STATUS_REQUEST_DELIVERY_MS

# Demand. How long it stands, from now; a stated end beyond: 400.
DEMAND_MAX_VALIDITY_MS = BID_MAX_VALIDITY_S * 1000
# No two places are farther apart; beyond: 400.
DEMAND_RADIUS_MAX_KM = Decimal(20_016)
# Open demands of this city; beyond: 503. And those kept of each peer: the newest.
DEMANDS_MAX = 10_000
DEMANDS_PER_PEER_MAX = 1_000
# Changes of this city's demand that a peer is told of at once; the rest follows with the next contact.
DEMANDS_TOLD_AT_ONCE = 200
# Matches of one demand, and demands that one supply is matched with, the oldest first; beyond, nobody is told.
DEMAND_MATCHES_MAX = 100
SUPPLY_MATCHES_MAX = 100
# Supply of one category that a new demand is compared with, here and of what was heard, the smallest first.
SUPPLIES_COMPARED_MAX = 300
# How long a demand that was closed can be read.
DEMAND_KEPT_MS = 30 * 24 * 3600 * 1000

# Links between nodes. A batch of frames, packed or unpacked; a larger one is a protocol error and ends the link.
LINK_BATCH_MAX_BYTES = 256 * 1024
LINK_BATCH_MAX_FRAMES = 4096
# A body that leaves room for its frame's other fields; a larger one goes as a request of §8.2.
LINK_BODY_MAX_BYTES = 240 * 1024
# Headers of a request over a link, and the characters of each; beyond: a protocol error.
LINK_HEADERS_MAX = 32
LINK_HEADER_MAX_CHARACTERS = 1024
# What a link may hold in flight towards its receiver: the most credit that anybody grants or takes.
LINK_CREDIT_MAX_BYTES = 1024 * 1024
LINK_CREDIT_MAX_FRAMES = 1024
# Frames that wait to be sent over a link; beyond, the link is too slow for what it must carry and is closed.
LINK_QUEUE_MAX_FRAMES = 8192
LINK_QUEUE_MAX_BYTES = 4 * 1024 * 1024
# Offers of messages over one link that are not settled yet, and their bodies; beyond, the log waits.
LINK_OFFERS_MAX = 512
LINK_OFFERS_MAX_BYTES = 1024 * 1024
# Links that are being made, before either side has shown who it is; a further one is answered 503.
LINK_CHALLENGES_MAX = 64
# One message of the challenge; a longer one ends it.
LINK_CHALLENGE_MAX_BYTES = 2_048
# Making a link, sending one batch, saying farewell: beyond these the link is given up.
LINK_OPEN_TIMEOUT_S = 10.0
LINK_WRITE_TIMEOUT_S = 30.0
LINK_CLOSE_TIMEOUT_S = 2.0
# A link on which nothing came for so long is asked for a sign of life, and given up after half as long again.
LINK_HEARTBEAT_S = 15.0
# Copies of one link that are decided on in one transaction.
LINK_COPIES_AT_ONCE = 64
# Requests of one peer that came over its link and are worked on at once; further ones wait, within the credit.
LINK_REQUESTS_AT_ONCE = 8
# Requests of this node over one link that wait for their answers; further ones go by HTTP.
LINK_REQUESTS_UNANSWERED_MAX = 64
# Ids that one peer offered and that wait for their body; beyond, the offer is put off.
LINK_WAITING_MAX = 1024
# What a node remembers to spare its links: messages of late, for itself and each link, and origins. The oldest is
# forgotten, which costs a needless body and nothing else.
SPREAD_MESSAGES_REMEMBERED = 4_096
SPREAD_ORIGINS_REMEMBERED = 4_096

# Health. What one peer may have this node ask others for it at one time; beyond, it is told that they are silent.
PROBE_ERRANDS_PER_PEER_MAX = 16
# Probes whose answers may still come; beyond, the answer to the oldest says nothing.
PROBES_UNANSWERED_MAX = 20_000
# Nodes that could be peers, as one peer's registry names them and as all do; beyond, what is kept is drawn by lot.
LEARNED_NODES_PER_TELLER_MAX = 200
LEARNED_NODES_MAX = 5_000

# Votes on signals. A window may not begin or last longer than this from now; beyond: 400.
SIGNAL_VOTE_MAX_MS = 366 * 86_400_000
# How far back a window may begin that is only now proposed: the time that a request may take.
SIGNAL_VOTE_LATE_MS = 300_000
# A vote's id, where the proposal gives one; beyond: 400.
VOTE_ID_MAX_CHARACTERS = 80
# A roll of voters is rewritten in one transaction when the window closes, and sent in parts. Beyond: 400, 409.
VOTE_ROLL_MAX = 200_000
VOTE_ROLL_PART_MAX = 5_000
# Remarks on one node's signals that are kept; the oldest go.
SIGNAL_REMARKS_PER_NODE_MAX = 20

# Events. The data of one entry of the log: it names documents, it does not repeat them. Beyond: a bug of the caller.
EVENT_DATA_MAX_BYTES = 4096
# What the log keeps, of each kind by itself, so that a flood of one pushes no other out; the oldest go, and a reader
# that asks for them is told.
EVENTS_KEPT_PER_KIND_MAX = 20_000
EVENTS_KEPT_MS = 30 * 24 * 3600 * 1000
# Events forgotten in one transaction: more would keep other writes waiting.
EVENTS_PRUNED_AT_ONCE = 500
# Streams of events, in all and of one client address; a further one is answered 503, in all not to an operator.
EVENT_FOLLOWERS_MAX = 256
EVENT_FOLLOWERS_PER_CLIENT_MAX = 16
# Events that wait for one stream's client, more than one transaction brings; beyond, the stream ends and says so.
EVENT_QUEUE_MAX = 4_096
# A stream that is silent so long says that it is there; one that is that old ends, and its client comes again.
EVENT_STREAM_HEARTBEAT_S = 15.0
EVENT_STREAM_MAX_S = 3_600.0
# Events read from the log, or sent, at once.
EVENT_STREAM_PAGE = 200
# Webhooks: how many there may be (409), and how long their address may be (400).
WEBHOOKS_MAX = 50
WEBHOOK_URL_MAX_CHARACTERS = 2_000
# One delivery: the whole of it, and what is read of the answer; beyond, it has failed.
WEBHOOK_TIMEOUT_S = 10.0
WEBHOOK_ANSWER_MAX_BYTES = 64 * 1024
# The longest wait between two attempts of a delivery.
WEBHOOK_RETRY_MAX_MS = 3_600_000
# Events of one webhook that are read from the log at once.
WEBHOOK_PAGE = 50
# How long messages are signed with the former secret too, after a new one was given.
WEBHOOK_FORMER_SECRET_MS = 24 * 3600 * 1000

# The ledger. The largest single amount: its hundredths are exact in a double, which the signed form (RFC 8785) writes
# numbers as. Beyond: 400.
LEDGER_AMOUNT_MAX_LC = Decimal(10) ** 13
# A payment order this much older than its arrival is refused: nobody keeps a signed one in a drawer. 400 `bad_time`.
TRANSFER_MAX_AGE_MS = 7 * 86_400_000
# How long the money of a buyer waits for the seller's node to reserve; after it: given back.
SETTLEMENT_PREPARE_MS = 24 * 3600 * 1000
# Days of issue of the coins that cross to another city in one payment. Beyond, nothing is held: `too_many_days`.
SETTLEMENT_ISSUE_DAYS_MAX = 1_000
# Settlements of one peer in a day for which this node, the payer's, holds nothing; each is kept for good. Beyond: 503.
SETTLEMENTS_VOID_PER_PEER_PER_DAY_MAX = 1_000
# Pages of a peer's statement that are read to compare it; beyond: 503.
STATEMENT_PAGES_MAX = 1000
# Reminders to other nodes in one transaction; the rest follows at the timer's next tick.
SETTLEMENT_REMINDERS_AT_ONCE = 50
# Payments in one run that two cities sign: its document stays below the size of any. The rest is in the next run.
NETTING_PAYMENTS_MAX = 500
# Runs and discharges that the other city is reminded of in one transaction; the rest follows at the timer's next tick.
NETTING_REMINDERS_AT_ONCE = 50
# Open claims that one discharge pays; the rest is left to the next one.
DISCHARGE_RUNS_MAX = 1_000
# Announced payments of one city that were denied within a day; beyond: 409 `too_many_denied`.
DISCHARGES_DENIED_PER_DAY_MAX = 20
# What names a payment between reserves outside; longer: 400.
DISCHARGE_REFERENCE_MAX_CHARACTERS = 140
# An order with its memo and whatever else its sender wants kept with it, for good. Beyond: 413.
ORDER_MAX_BYTES = 16 * 1024
# Pending transfers that one account may have of its own orders: they can all end at one moment. Beyond: 409.
PENDING_PER_ACCOUNT_MAX = 1_000
# How long an order may reserve funds; beyond: 400.
HOLD_MAX_MS = 90 * 86_400_000
# Orders in one request that stand and fall together; beyond: 400.
LINKED_TRANSFERS_MAX = 16
# Accounts whose due decay is charged in one transaction, so that other writes need not wait for a whole city's.
DUE_ACCOUNTS_AT_ONCE = 100

# Search. Half the way around the earth is everywhere; a wider radius is a mistake: 400.
SEARCH_RADIUS_MAX_KM = 20_016
# Text to search for, and the words in it; beyond: 400.
SEARCH_TEXT_MAX_CHARACTERS = 200
SEARCH_WORDS_MAX = 16
# How long one search may read, for others wait for its connection. Beyond: 503 `overloaded`.
SEARCH_TIMEOUT_S = 10.0
# Matches whose LoopCost one search reckons, each exactly. Beyond: 400 `too_many_matches`.
SEARCH_COSTED_MAX = 100_000
# What other cities announced that is kept to be found. Beyond, the city with the most makes room.
CATALOGUE_ENTRIES_MAX = 100_000
# A category in other words than v0.2.0's, as it was announced; a longer one counts as none.
CATALOGUE_CATEGORY_MAX_CHARACTERS = 80
# Entries that have ended and go with each new one, so that no search has many of them to pass over.
SEARCH_ENDED_AT_ONCE = 4
# Records that are entered in one transaction where many wait.
SEARCH_BACKLOG_AT_ONCE = 500

# A MaterialTransaction's id, whose pattern has no end. Beyond: 400.
TRANSACTION_ID_MAX_CHARACTERS = 120
# How long a Match may reserve without a Transfer. Beyond: 400.
MATCH_MAX_VALIDITY_MS = 366 * 86_400_000
# Offers, Matches and selections that are taken up at once because they are due; the rest follow.
DUE_AT_ONCE_MAX = 100
# Versions of one entry that its history shows; an Offer gets two more with each Match, so only a loop reaches it.
HISTORY_MAX = 1_000
