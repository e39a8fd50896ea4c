"""Orders and returns that a case can be about: fresh ones where it changes them, in the state that it needs."""

import threading
import time
from dataclasses import dataclass

import requests

# Filed together, so that the wait for the helper is shared.
BATCH = 24
DEADLINE_SECS = 30.0


@dataclass(frozen=True)
class Return:
    id: int
    etag: str
    status: str


class Stock:
    """What the run has made through the api itself. One lock: cases run on several threads."""

    def __init__(
        self, api: str, customer: str, unlucky: str, first_order: int, first_unlucky_order: int
    ) -> None:
        """The gateway declines every refund of the unlucky customer (e2e/src/contract/decliner.rs)."""
        self._api = api
        self._customer = {"Authorization": f"Bearer {customer}"}
        self._unlucky = {"Authorization": f"Bearer {unlucky}"}
        self._next_order = first_order
        self._next_unlucky_order = first_unlucky_order
        self._orders: list[int] = []
        self._returns: dict[str, list[Return]] = {"initiated": [], "refund_failed": [], "cancelled": []}
        self._http = requests.Session()
        self._lock = threading.Lock()

    def order(self) -> int:
        """One that has no return yet."""
        with self._lock:
            return self._order()

    def take(self, status: str) -> Return:
        """A return in this state. One that was given back may have been found by another case, and changed."""
        customer = self._unlucky if status == "refund_failed" else self._customer
        with self._lock:
            stock = self._returns[status]
            while True:
                if not stock:
                    stock += self._make(status)
                one = stock.pop()
                if self._read(one.id, customer) == one:
                    return one

    def give_back_order(self, order: int) -> None:
        with self._lock:
            self._orders.append(order)

    def give_back(self, taken: Return) -> None:
        with self._lock:
            self._returns[taken.status].append(taken)

    def read(self, return_id: int) -> Return | None:
        """The customer's return as it is now; nothing if there is none."""
        return self._read(return_id, self._customer)

    def _read(self, return_id: int, customer: dict[str, str]) -> Return | None:
        answer = self._http.get(f"{self._api}/returns/{return_id}", headers=customer, timeout=10)
        if answer.status_code != 200:
            return None
        return Return(return_id, answer.headers["ETag"], answer.json()["status"])

    def _order(self) -> int:
        if self._orders:
            return self._orders.pop()
        self._next_order += 1
        return self._next_order - 1

    def _file(self, order: int, customer: dict[str, str]) -> Return:
        body = {"order_id": order, "reason": "does not fit"}
        answer = self._http.post(f"{self._api}/returns", json=body, headers=customer, timeout=10)
        answer.raise_for_status()
        return Return(answer.json()["return_id"], '"1"', "initiated")

    def _make(self, status: str) -> list[Return]:
        if status == "refund_failed":
            return self._failed()
        made = self._file(self._order(), self._customer)
        return [made if status == "initiated" else self._cancel(made)]

    def _cancel(self, one: Return) -> Return:
        headers = {**self._customer, "If-Match": one.etag}
        answer = self._http.post(f"{self._api}/returns/{one.id}/cancel", headers=headers, timeout=10)
        answer.raise_for_status()
        return Return(one.id, answer.headers["ETag"], answer.json()["status"])

    def _failed(self) -> list[Return]:
        orders = range(self._next_unlucky_order, self._next_unlucky_order + BATCH)
        self._next_unlucky_order = orders.stop
        waiting = [self._file(order, self._unlucky).id for order in orders]
        failed = []
        end = time.monotonic() + DEADLINE_SECS
        while waiting:
            now = self._read(waiting[-1], self._unlucky)
            if now and now.status == "refund_failed":
                failed.append(now)
                waiting.pop()
            elif time.monotonic() > end:
                raise TimeoutError(f"return {waiting[-1]} is not refund_failed: {now}")
            else:
                time.sleep(0.02)
        return failed
