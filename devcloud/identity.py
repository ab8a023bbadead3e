"""Managed identity as a VM and a function app reach it: App Service's endpoint and the VMs' IMDS.

A token is minted for whatever resource is asked for; who may do what is not checked here (no RBAC).
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from aiohttp import web

from devcloud.tokens import CLIENT_ID, MintedToken, Tokens
from devcloud.vms.base import SimulatedVm, VmSpec

APP_SERVICE_PATH = "/msi/token"
IMDS_PATH = "/metadata"


def identity_error(_status: int, code: str, message: str) -> dict[str, Any]:
    """The error body of IMDS."""
    return {"error": code, "error_description": message}


class IdentityServer:
    """Routes of both endpoints. ``header`` is the secret that App Service puts into IDENTITY_HEADER."""

    def __init__(self, tokens: Tokens, vms: Mapping[str, SimulatedVm], header: str) -> None:
        self._tokens = tokens
        self._vms = vms
        self._header = header
        self._scheduled_events: dict[str, tuple[int, list[dict[str, Any]]]] = {}

    def announce(self, vm: str, events: Sequence[Mapping[str, Any]]) -> None:
        """Let the VM named ``vm`` see these Scheduled Events, as Azure writes them, and no earlier ones."""
        incarnation = self._scheduled_events.get(vm.lower(), (0, []))[0] + 1
        self._scheduled_events[vm.lower()] = (incarnation, [dict(event) for event in events])

    def add_routes(self, app: web.Application) -> None:
        """Serve the endpoints; ``/vm/NAME/metadata`` is the IMDS of one VM where addresses are shared."""
        app.router.add_get(APP_SERVICE_PATH, self.app_service_token)
        for prefix in (IMDS_PATH, "/vm/{vm}" + IMDS_PATH):
            app.router.add_get(prefix + "/identity/oauth2/token", self.imds_token)
            app.router.add_get(prefix + "/instance", self.imds_instance)
            app.router.add_get(prefix + "/instance/compute", self.imds_instance)
            app.router.add_get(prefix + "/scheduledevents", self.imds_scheduled_events)

    async def app_service_token(self, request: web.Request) -> web.Response:
        """``GET IDENTITY_ENDPOINT?resource=&api-version=2019-08-01`` with the ``X-IDENTITY-HEADER``."""
        if request.headers.get("X-IDENTITY-HEADER") != self._header:
            return _app_service_error(401, "the X-IDENTITY-HEADER header is missing or wrong")
        for name in ("resource", "api-version"):
            if not request.query.get(name):
                return _app_service_error(400, f"the query parameter {name!r} is required")
        if request.query["api-version"] != "2019-08-01":
            return _app_service_error(400, "api-version must be 2019-08-01")
        token = self._tokens.mint(request.query["resource"])
        return web.json_response(
            {
                "access_token": token.text,
                "expires_on": str(token.expires_on),
                "resource": token.resource,
                "token_type": "Bearer",
                "client_id": request.query.get("client_id", CLIENT_ID).upper(),
            }
        )

    async def imds_token(self, request: web.Request) -> web.Response:
        """IMDS token (api 2018-02-01); its numbers are strings, as in Azure."""
        refusal = _imds_refusal(request)
        if refusal is not None:
            return refusal
        if not request.query.get("resource"):
            return _imds_error(400, "invalid_request", "Required query variable 'resource' is missing")
        token = self._tokens.mint(request.query["resource"])
        return web.json_response(_imds_body(token))

    async def imds_instance(self, request: web.Request) -> web.Response:
        """What the calling VM is: found by its address, or by name under ``/vm/NAME``."""
        refusal = _imds_refusal(request)
        if refusal is not None:
            return refusal
        vm = self._caller(request)
        if vm is None:
            return _imds_error(404, "not_found", f"no VM has the address {request.remote}")
        compute = _compute(vm.spec)
        if request.path.endswith("/compute"):
            return web.json_response(compute)
        address = {"privateIpAddress": vm.spec.address, "publicIpAddress": ""}
        network = {"interface": [{"ipv4": {"ipAddress": [address]}, "ipv6": {"ipAddress": []}}]}
        return web.json_response({"compute": compute, "network": network})

    async def imds_scheduled_events(self, request: web.Request) -> web.Response:
        """What is announced for the calling VM; an empty list where nothing is."""
        refusal = _imds_refusal(request)
        if refusal is not None:
            return refusal
        vm = self._caller(request)
        if vm is None:
            return _imds_error(404, "not_found", f"no VM has the address {request.remote}")
        incarnation, events = self._scheduled_events.get(vm.spec.name.lower(), (0, []))
        return web.json_response({"DocumentIncarnation": incarnation, "Events": events})

    def _caller(self, request: web.Request) -> SimulatedVm | None:
        if "vm" in request.match_info:
            return self._vms.get(request.match_info["vm"].lower())
        return next((vm for vm in self._vms.values() if vm.spec.address == request.remote), None)


def _compute(spec: VmSpec) -> dict[str, Any]:
    tags = [{"name": name, "value": value} for name, value in spec.tags.items()]
    return {
        "azEnvironment": "AzurePublicCloud",
        "location": spec.location,
        "name": spec.name,
        "osType": "Linux",
        "resourceGroupName": spec.resource_group,
        "resourceId": spec.vm_id,
        "subscriptionId": spec.subscription_id,
        "tags": ";".join(f"{tag['name']}:{tag['value']}" for tag in tags),
        "tagsList": tags,
        "vmId": vm_guid(spec),
        "zone": "",
    }


def vm_guid(spec: VmSpec) -> str:
    """The VM's unique id (``vmId``), the same in IMDS and ARM."""
    return str(uuid.uuid5(uuid.NAMESPACE_URL, spec.vm_id.lower()))


def _imds_refusal(request: web.Request) -> web.Response | None:
    if request.headers.get("Metadata", "").lower() != "true":
        return _imds_error(400, "invalid_request", "Required metadata header not specified")
    if "X-Forwarded-For" in request.headers:
        return _imds_error(400, "invalid_request", "X-Forwarded-For must not be set")
    if not request.query.get("api-version"):
        return _imds_error(400, "invalid_request", "Required query variable 'api-version' is missing")
    return None


def _imds_body(token: MintedToken) -> dict[str, str]:
    lifetime = str(token.expires_on - token.not_before)
    return {
        "access_token": token.text,
        "client_id": CLIENT_ID,
        "expires_in": lifetime,
        "expires_on": str(token.expires_on),
        "ext_expires_in": lifetime,
        "not_before": str(token.not_before),
        "resource": token.resource,
        "token_type": "Bearer",
    }


def _imds_error(status: int, code: str, message: str) -> web.Response:
    return web.json_response(identity_error(status, code, message), status=status)


def _app_service_error(status: int, message: str) -> web.Response:
    return web.json_response({"statusCode": status, "message": message}, status=status)
