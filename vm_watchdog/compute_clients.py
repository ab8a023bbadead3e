"""One compute client a subscription, made at first use: that SDK is the dearest import of all (0.14 s)."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from azure.core.credentials_async import AsyncTokenCredential
    from azure.mgmt.compute.aio import ComputeManagementClient


class ComputeClients:
    """Hands out clients for ``arm_endpoint``; ``audience`` is what their tokens are asked for."""

    def __init__(self, credential: AsyncTokenCredential, arm_endpoint: str, audience: str) -> None:
        self._credential = credential
        self._arm_endpoint = arm_endpoint
        self._audience = audience
        self._clients: dict[str, ComputeManagementClient] = {}

    async def get(self, subscription: str) -> ComputeManagementClient:
        """Return the client for ``subscription``."""
        if subscription not in self._clients:
            from azure.mgmt.compute.aio import ComputeManagementClient  # noqa: PLC0415

            self._clients[subscription] = ComputeManagementClient(
                self._credential,
                subscription,
                base_url=self._arm_endpoint,
                credential_scopes=[f"{self._audience}/.default"],
                retry_total=2,
                retry_status=0,  # waiting for a 429's Retry-After would hold up the tick
                connection_timeout=10,
                read_timeout=30,
            )
        return self._clients[subscription]

    async def close(self) -> None:
        """Close every client."""
        for client in self._clients.values():
            await client.close()
