"""Wires settings to adapters: the only module that knows them all. Connects to nothing."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from vm_health.policy import Policy
from vm_watchdog.app import Watchdog
from vm_watchdog.look import Ports
from vm_watchdog.settings import Settings
from vm_watchdog.tick import TickOptions


def build(settings: Settings) -> Watchdog:
    """Return the watchdog that ``settings`` describe. SDKs are imported here, at the first trigger, so that
    the Functions host indexes the app fast."""
    from azure.data.tables.aio import TableServiceClient  # noqa: PLC0415
    from azure.identity.aio import DefaultAzureCredential  # noqa: PLC0415
    from azure.monitor.query.aio import LogsQueryClient  # noqa: PLC0415
    from azure.storage.queue.aio import QueueServiceClient  # noqa: PLC0415

    from vm_alerts.channels.webhook import Webhook  # noqa: PLC0415
    from vm_watchdog.adapters.channel_sender import ChannelSender  # noqa: PLC0415
    from vm_watchdog.adapters.compute_inventory import ComputeInventory  # noqa: PLC0415
    from vm_watchdog.adapters.http_probe import HttpProber  # noqa: PLC0415
    from vm_watchdog.adapters.log_query import LogAnalyticsTelemetry  # noqa: PLC0415
    from vm_watchdog.adapters.run_command import AzureRunCommand  # noqa: PLC0415
    from vm_watchdog.adapters.storage_queue import StorageWorkQueue  # noqa: PLC0415
    from vm_watchdog.adapters.table_state import TableStateStore  # noqa: PLC0415
    from vm_watchdog.compute_clients import ComputeClients  # noqa: PLC0415

    credential = DefaultAzureCredential()
    compute = ComputeClients(credential, settings.arm_endpoint, settings.arm_audience)
    logs = LogsQueryClient(credential, endpoint=settings.logs_endpoint, audience=settings.logs_audience)
    tables = TableServiceClient(settings.table_endpoint, credential=credential)
    queues = QueueServiceClient(settings.queue_endpoint, credential=credential)
    prober = HttpProber(settings.probe_networks, settings.probe_timeout_seconds, settings.probe_concurrency)
    webhook = settings.alert_webhook_url.reveal()
    sender = ChannelSender([Webhook(webhook)] if webhook else [], settings.dashboard_url, settings.portal_url)
    window = timedelta(minutes=settings.telemetry_window_minutes)
    ports = Ports(
        inventory=ComputeInventory(compute, settings.subscriptions),
        telemetry=LogAnalyticsTelemetry(logs, settings.workspace_id, window),
        prober=prober,
        store=TableStateStore(tables),
        queue=StorageWorkQueue(queues),
        runner=AzureRunCommand(compute),
        alerts=sender,
    )
    closing: tuple[Any, ...] = (prober, sender, compute, logs, tables, queues, credential)

    async def close() -> None:
        for thing in closing:
            await thing.close()

    options = TickOptions(_policy(settings), _utc_now, settings.shard_size)
    return Watchdog(ports, options, settings.live_max_age_seconds, close)


def _policy(settings: Settings) -> Policy:
    return replace(settings.policy, may_act=settings.mode == "on")


def _utc_now() -> datetime:
    return datetime.now(UTC)
