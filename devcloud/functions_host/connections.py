"""A binding's storage connection: the app settings that share its prefix, read as the Functions host does.

``<prefix>`` holds a connection string (``UseDevelopmentStorage=true`` is Azurite at its usual port), or
``<prefix>__queueServiceUri`` (``<prefix>__accountName``) names the account and an Entra identity opens it:
``<prefix>__credential=managedidentity`` with ``<prefix>__clientId``, else what DefaultAzureCredential finds.
"""

from __future__ import annotations

from collections.abc import Mapping

from azure.core.credentials_async import AsyncTokenCredential
from azure.identity.aio import DefaultAzureCredential, ManagedIdentityCredential
from azure.storage.queue.aio import QueueServiceClient

from .errors import HostError

# Azurite's account and key are published constants, the same on every machine.
_DEVELOPMENT_STORAGE = (
    "DefaultEndpointsProtocol=http;AccountName=devstoreaccount1;"
    "AccountKey=Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==;"
    "QueueEndpoint=http://127.0.0.1:10001/devstoreaccount1;"
)


class QueueConnection:
    """One storage account's queues and the credential that opens them."""

    def __init__(self, service: QueueServiceClient, credential: AsyncTokenCredential | None) -> None:
        self.service = service
        self._credential = credential

    async def close(self) -> None:
        await self.service.close()
        if self._credential is not None:
            await self._credential.close()


def connect(prefix: str, environ: Mapping[str, str]) -> QueueConnection:
    """Make the clients for ``prefix``; connects nowhere yet. Raises ``HostError`` that names the settings."""
    connection_string = environ.get(prefix)
    if connection_string:
        if connection_string.strip().rstrip(";").lower() == "usedevelopmentstorage=true":
            connection_string = _DEVELOPMENT_STORAGE
        try:
            return QueueConnection(QueueServiceClient.from_connection_string(connection_string), None)
        except ValueError as error:
            raise HostError([f"app setting {prefix} is no storage connection string: {error}"]) from error
    account = environ.get(f"{prefix}__accountName")
    url = environ.get(f"{prefix}__queueServiceUri") or (
        f"https://{account}.queue.core.windows.net" if account else None
    )
    if url is None:
        raise HostError(
            [
                f"queue connection {prefix!r}: one of the app settings {prefix}, {prefix}__queueServiceUri, "
                f"{prefix}__accountName must be set, none is"
            ]
        )
    credential = _credential(prefix, environ)
    return QueueConnection(QueueServiceClient(url, credential=credential), credential)


def _credential(prefix: str, environ: Mapping[str, str]) -> AsyncTokenCredential:
    client_id = environ.get(f"{prefix}__clientId")
    if environ.get(f"{prefix}__credential", "").lower() == "managedidentity":
        return ManagedIdentityCredential(client_id=client_id)
    return DefaultAzureCredential(managed_identity_client_id=client_id)
