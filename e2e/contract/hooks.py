"""What Schemathesis cannot know from the document: whose token, which order, which return, and its present `ETag`.

Only what was generated as valid is replaced, by something that exists; what was made invalid on purpose is sent as it
is, so each invalid part meets requests that would succeed without it.
"""

import atexit
import hashlib
import json
import os
import random
import threading
import uuid
from collections import Counter
from pathlib import Path
from typing import Any

import schemathesis
from schemathesis.core.parameters import ParameterLocation
from schemathesis.core.transport import Response
from schemathesis.generation.meta import TestPhase, coverage_scenario

from stock import Return, Stock

# `fitting` is for each operation the role that may do it; otherwise everything is asked under this one role.
ROLE = os.environ["CONTRACT_ROLE"]
TOKENS = {role: os.environ[f"CONTRACT_{role.upper()}_TOKEN"] for role in ("customer", "admin", "auditor")}
FITTING = {
    "fileReturn": ("customer",),
    "listReturns": ("customer", "admin"),
    "listOperatorActions": ("auditor", "admin"),
    "listOrders": ("customer",),
    "getReturn": ("customer", "admin"),
    "watchReturn": ("customer", "admin"),
    "cancelReturn": ("customer", "admin"),
    "listReturnEvents": ("auditor", "admin"),
    "listEvents": ("auditor", "admin"),
}
CUSTOMER = int(os.environ["CONTRACT_CUSTOMER"])
# The state from which a decision leads somewhere, and which it ends.
DECISIONS = {
    "cancelReturn": "initiated",
    "approveReturn": "initiated",
    "rejectReturn": "initiated",
    "retryRefund": "refund_failed",
}
# A stream ends by itself only where nothing more can happen.
FINAL = ("cancelled", "rejected", "refunded")
EXPORTS = ("application/x-ndjson", "text/csv")

stock = Stock(
    os.environ["CONTRACT_API"],
    TOKENS["customer"],
    os.environ["CONTRACT_UNLUCKY_TOKEN"],
    int(os.environ["CONTRACT_FIRST_ORDER"]),
    int(os.environ["CONTRACT_FIRST_UNLUCKY_ORDER"]),
)
# Not the global one, which Hypothesis seeds and replays.
dice = random.Random(int(os.environ["CONTRACT_SEED"]))
lock = threading.Lock()


@schemathesis.hook
def before_load_schema(context: schemathesis.HookContext, raw_schema: dict[str, Any]) -> None:
    """`contentSchema` describes the data of one event. Schemathesis applies it to the characters of the body."""
    stream = raw_schema["paths"]["/returns/{id}/stream"]["get"]["responses"]["200"]
    del stream["content"]["text/event-stream"]["schema"]["contentSchema"]

tally: Counter[tuple[str, str, int]] = Counter()
taken: dict[str, Return | int] = {}
keys_used: set[str] = set()
filed: list[tuple[str, Any]] = []


def operation_of(case: schemathesis.Case) -> str:
    return case.operation.definition.raw["operationId"]


@schemathesis.auth(refresh_interval=None)
class Bearer:
    def get(self, case: schemathesis.Case, _: schemathesis.AuthContext) -> str:
        roles = (ROLE,) if ROLE != "fitting" else FITTING.get(operation_of(case), ("admin",))
        return TOKENS[dice.choice(roles)]

    def set(self, case: schemathesis.Case, token: str, _: schemathesis.AuthContext) -> None:
        case.headers["Authorization"] = f"Bearer {token}"


def is_valid(case: schemathesis.Case, location: ParameterLocation) -> bool:
    return case.meta is not None and not case.meta.is_negative_at(location)


@schemathesis.hook
def before_call(_: schemathesis.HookContext, case: schemathesis.Case, kwargs: dict[str, Any]) -> None:
    operation = operation_of(case)
    if "id" in case.path_parameters and is_valid(case, ParameterLocation.PATH):
        hand_out_return(case, operation)
    if operation == "fileReturn":
        hand_out_order(case)
    if operation in ("listEvents", "listReturnEvents"):
        choose_form(case)


def hand_out_return(case: schemathesis.Case, operation: str) -> None:
    """An existing return, and its `ETag` as `If-Match` where one was to be sent."""
    wanted = "cancelled" if operation == "watchReturn" else DECISIONS.get(operation, "initiated")
    followed = case.meta.phase.name is TestPhase.STATEFUL and stock.read(case.path_parameters["id"])
    if followed and (operation != "watchReturn" or followed.status in FINAL):
        # The link says which: an earlier step's.
        chosen = followed
    else:
        chosen = stock.take(wanted)
        taken[case.id] = chosen
        case.path_parameters = {**case.path_parameters, "id": chosen.id}
    if operation in DECISIONS and is_valid(case, ParameterLocation.HEADER) and case.headers.get("If-Match") != "*":
        case.headers["If-Match"] = chosen.etag
    if operation == "getReturn" and is_valid(case, ParameterLocation.HEADER) and dice.random() < 0.6:
        # Most tags are the example's, and match: 304.
        case.headers.pop("If-None-Match", None)


def hand_out_order(case: schemathesis.Case) -> None:
    """An order without a return, under a new key; or, once in a while, an earlier filing once more."""
    if not is_valid(case, ParameterLocation.BODY) or not isinstance(case.body, dict):
        return
    key = case.headers.get("Idempotency-Key") if is_valid(case, ParameterLocation.HEADER) else None
    if key is not None and filed and dice.random() < 0.1:
        case.headers["Idempotency-Key"], case.body = dice.choice(filed)
        return
    order = stock.order()
    taken[case.id] = order
    case.body = {**case.body, "order_id": order}
    # Only an admin names a customer, and must.
    case.body.pop("customer_id", None)
    if ROLE == "admin":
        case.body["customer_id"] = CUSTOMER
    if key is not None:
        # As generated if it can be: the shortest and the longest are among them.
        if key in keys_used:
            case.headers["Idempotency-Key"] = key = f"{key[:200]}-{uuid.uuid4()}"
        keys_used.add(key)


def choose_form(case: schemathesis.Case) -> None:
    """Exports are half of what is asked. They have no pages; of all returns' events, mostly one's: the rest is long."""
    if not is_valid(case, ParameterLocation.HEADER):
        # Touched, they would be judged anew, and a missing token is no part of that.
        return
    if case.meta.generation.mode.is_negative:
        if dice.random() < 0.02:
            case.headers["Accept"] = "image/png"
    elif case.meta.phase.name is not TestPhase.STATEFUL and dice.random() < 0.5:
        case.headers["Accept"] = dice.choice(EXPORTS)
        query = {name: value for name, value in case.query.items() if name not in ("limit", "cursor")}
        if operation_of(case) == "listEvents" and dice.random() < 0.99:
            some = stock.take("initiated")
            stock.give_back(some)
            query["return_id"] = some.id
        case.query = query


@schemathesis.hook
def after_call(_: schemathesis.HookContext, case: schemathesis.Case, response: Response) -> None:
    operation, status = operation_of(case), response.status_code
    with lock:
        tally[operation, kind(case), status] += 1
    given = taken.pop(case.id, None)
    done = 200 <= status < 300
    if isinstance(given, int):
        if done and "Idempotency-Key" in case.headers:
            filed.append((case.headers["Idempotency-Key"], case.body))
        elif not done:
            stock.give_back_order(given)
    elif given is not None and not (done and operation in DECISIONS):
        stock.give_back(given)


def kind(case: schemathesis.Case) -> str:
    if coverage_scenario(case) in schemathesis.generation.meta.REQUEST_SHAPE_PROBES:
        return "probe"
    return "positive" if case.meta is not None and case.meta.generation.mode.is_positive else "negative"


@schemathesis.check
def export_is_whole(_: schemathesis.CheckContext, response: Response, case: schemathesis.Case) -> None:
    """NDJSON ends with the number of its lines and their hash; CSV has its head line."""
    content_type = response.headers.get("content-type", [""])[0]
    if response.status_code != 200 or not content_type.startswith(EXPORTS):
        return
    if content_type.startswith("text/csv"):
        assert response.content.startswith(b"return_id,seq,"), "the CSV has no head line"
        return
    *lines, last = response.content.splitlines(keepends=True)
    manifest = json.loads(last)["_manifest"]
    assert manifest["count"] == len(lines), f"{manifest} after {len(lines)} lines"
    assert manifest["sha256"] == hashlib.sha256(b"".join(lines)).hexdigest(), "the hash is another one"


@schemathesis.deserializer(*EXPORTS, "text/event-stream")
def read_text(_: Any, response: Response) -> str:
    return response.content.decode()


@atexit.register
def write_tally() -> None:
    rows = [[*key, count] for key, count in sorted(tally.items())]
    Path(os.environ["CONTRACT_TALLY"]).write_text(json.dumps(rows))
