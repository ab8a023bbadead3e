"""Wires settings to adapters: the only module that knows them all. Connects to nothing."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from vm_watchdog.app import Watchdog
from vm_watchdog.look import Ports
from vm_watchdog.settings import Settings
from vm_watchdog.shared import SharedInventory, SharedTelemetry
from vm_watchdog.sight import Recorder, TickOptions

# Rechecks come in bursts: telemetry that is younger than this is not asked for again.
SHARED_TELEMETRY_SECONDS = 3.0
# The shards of one tick ask at once. Two ticks never share a list: an old one would confirm itself, and a VM
# that has just been stopped would count as unreachable.
SHARED_INVENTORY_SECONDS = 0.5


def build(settings: Settings, recorder: Recorder | None = None) -> Watchdog:
    """Return the watchdog that ``settings`` describe; ``recorder`` takes the evidence of every look.

    SDKs are imported here, at the first trigger, so that the Functions host indexes the app fast.
    """
    from azure.data.tables.aio import TableServiceClient  # noqa: PLC0415
    from azure.identity.aio import DefaultAzureCredential  # noqa: PLC0415
    from azure.monitor.query.aio import LogsQueryClient  # noqa: PLC0415
    from azure.storage.queue.aio import QueueServiceClient  # noqa: PLC0415

    from vm_watchdog.adapters.activity_log import AzureActivityLog  # noqa: PLC0415
    from vm_watchdog.adapters.canary import IngestionCanary  # noqa: PLC0415
    from vm_watchdog.adapters.compute_inventory import ComputeInventory  # noqa: PLC0415
    from vm_watchdog.adapters.dead_man import DeadManPing  # noqa: PLC0415
    from vm_watchdog.adapters.http_probe import HttpProber  # noqa: PLC0415
    from vm_watchdog.adapters.log_query import LogAnalyticsTelemetry  # noqa: PLC0415
    from vm_watchdog.adapters.run_command import AzureRunCommand  # noqa: PLC0415
    from vm_watchdog.adapters.storage_queue import StorageWorkQueue  # noqa: PLC0415
    from vm_watchdog.adapters.table_fleet import TableFleetStore  # noqa: PLC0415
    from vm_watchdog.adapters.table_silences import TableSilenceStore  # noqa: PLC0415
    from vm_watchdog.adapters.table_state import TableStateStore  # noqa: PLC0415
    from vm_watchdog.adapters.vm_actions import AzureVmActuator  # noqa: PLC0415
    from vm_watchdog.compute_clients import ComputeClients  # noqa: PLC0415

    credential = DefaultAzureCredential()
    compute = ComputeClients(credential, settings.arm_endpoint, settings.arm_audience)
    logs = LogsQueryClient(credential, endpoint=settings.logs_endpoint, audience=settings.logs_audience)
    # Storage answers within milliseconds or is in trouble; the SDKs' own patience would hold up the tick.
    patience: dict[str, Any] = {"connection_timeout": 5, "read_timeout": 20, "retry_total": 1}
    tables = TableServiceClient(settings.table_endpoint, credential=credential, **patience)
    queues = QueueServiceClient(
        settings.queue_endpoint,
        credential=credential,
        connection_timeout=5,
        read_timeout=20,
        retry_total=1,
        initial_backoff=1,
        increment_base=1,
    )
    prober = HttpProber(settings.probe_networks, settings.probe_timeout_seconds, settings.probe_concurrency)
    sender = _sender(settings)
    dead_man = DeadManPing(settings.deadman_url.reveal(), timeout_seconds=5.0)
    canary = IngestionCanary(
        settings.telemetry_connection_string.reveal(),
        credential if settings.telemetry_auth == "entra" else None,
        settings.canary_url,
        timeout_seconds=5.0,
    )
    window = timedelta(minutes=settings.telemetry_window_minutes)
    telemetry = LogAnalyticsTelemetry(logs, settings.workspace_id, window)
    inventory = ComputeInventory(compute, settings.subscriptions)
    queue = StorageWorkQueue(queues)
    ports = Ports(
        inventory=SharedInventory(inventory, utc_now, SHARED_INVENTORY_SECONDS),
        telemetry=SharedTelemetry(telemetry, utc_now, SHARED_TELEMETRY_SECONDS),
        prober=prober,
        store=TableStateStore(tables),
        fleet=TableFleetStore(tables),
        silences=TableSilenceStore(tables),
        queue=queue,
        runner=AzureRunCommand(compute),
        actuator=AzureVmActuator(compute),
        activity=AzureActivityLog(compute),
        canary=canary,
        dead_man=dead_man,
        alerts=sender,
    )
    closing: tuple[Any, ...] = (
        prober, sender, dead_man, canary, compute, logs, tables, queues, credential,
    )  # fmt: skip

    async def close() -> None:
        for thing in closing:
            await thing.close()

    options = TickOptions(settings.book, utc_now, settings.mode == "on", settings.shard_size, recorder)
    return Watchdog(ports, options, settings.live_max_age_seconds, close, settings.sign_in, queue)


def _sender(settings: Settings) -> Any:
    from vm_alerts.channels.webhook import Webhook  # noqa: PLC0415
    from vm_watchdog.adapters.channel_sender import ChannelSender  # noqa: PLC0415

    webhook = settings.alert_webhook_url.reveal()
    channels = [Webhook(webhook)] if webhook else []
    return ChannelSender(channels, settings.dashboard_url, settings.portal_url)


def utc_now() -> datetime:
    """The clock of a deployed watchdog."""
    return datetime.now(UTC)
