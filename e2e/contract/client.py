"""A return is filed and followed with the generated client: CONTRACT_API, CONTRACT_CUSTOMER_TOKEN."""

import os
import uuid

from returns_client import ApiClient, Configuration, NewReturn, OrdersApi, ReturnsApi
from returns_client.exceptions import ConflictException

api = ApiClient(
    Configuration(host=os.environ["CONTRACT_API"], access_token=os.environ["CONTRACT_CUSTOMER_TOKEN"])
)
returns = ReturnsApi(api)

order = next(order for order in OrdersApi(api).list_orders(limit=10).items if order.returnable)
new_return = NewReturn(order_id=order.order_id, reason="does not fit", reason_code="too_small")
key = str(uuid.uuid4())
filed = returns.file_return(new_return, idempotency_key=key)
print(f"order {order.order_id}, {order.total.amount} {order.total.currency}: return {filed.return_id} is {filed.status.value}")

again = returns.file_return(new_return, idempotency_key=key)
assert again.return_id == filed.return_id, "a repeat filed another return"
read = returns.get_return_with_http_info(filed.return_id)
assert read.data.refund == order.total, f"{read.data.refund} of {order.total}"
print(f"read it with ETag {read.headers['etag']}: {read.data.status.value}, {read.data.refund.amount} {read.data.refund.currency}")

try:
    returns.file_return(new_return)
    raise SystemExit("a second return of one order was filed")
except ConflictException as error:
    print(f"a second one: {error.status} {error.data.type}, {error.data.title}: return {error.data.return_id}")
    assert error.data.return_id == filed.return_id
