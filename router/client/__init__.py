"""Call the service from Python, synchronously or asynchronously (`RouterClient`, `AsyncRouterClient`).

from router.client import RouterClient

with RouterClient("localhost:50051") as client:
    print(client.route("What is the capital of France?").chosen)
"""

from router.client.calls import Answer, AsyncRouterClient, Rest, Routable, RouterClient, Step
from router.client.channels import DEFAULT_ADDRESS, ClientTlsFiles

__all__ = [
    "DEFAULT_ADDRESS",
    "Answer",
    "AsyncRouterClient",
    "ClientTlsFiles",
    "Rest",
    "Routable",
    "RouterClient",
    "Step",
]
