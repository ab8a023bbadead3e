"""Which action each operation of the local ARM needs, and taking some of them away from the caller.

Not Azure's role assignments: everybody may do everything that has not been denied.
"""

from __future__ import annotations

from aiohttp import web

from devcloud.arm import ArmError
from devcloud.calls import FAULT
from devcloud.tokens import CLIENT_ID, OBJECT_ID

_VMS = "Microsoft.Compute/virtualMachines"
# Of an operation's name (see ``calls``): the action in Azure's resource provider operations.
ACTIONS = {
    "list_all": f"{_VMS}/read",
    "list_group": f"{_VMS}/read",
    "get": f"{_VMS}/read",
    "instance_view": f"{_VMS}/instanceView/read",
    "restart": f"{_VMS}/restart/action",
    "redeploy": f"{_VMS}/redeploy/action",
    "start": f"{_VMS}/start/action",
    "deallocate": f"{_VMS}/deallocate/action",
    "power_off": f"{_VMS}/powerOff/action",
    "run_command": f"{_VMS}/runCommand/action",
    "run_command_put": f"{_VMS}/runCommands/write",
    "run_commands_get": f"{_VMS}/runCommands/read",
    "run_commands_list": f"{_VMS}/runCommands/read",
    "run_commands_delete": f"{_VMS}/runCommands/delete",
    "poll": "Microsoft.Compute/locations/operations/read",
    "activity_log": "Microsoft.Insights/eventtypes/values/read",
}


class Permissions:
    """The actions that are denied. A fault of mode ``forbidden`` denies one operation as well."""

    def __init__(self) -> None:
        self._denied: set[str] = set()

    def deny(self, action: str) -> None:
        """Take an action away; raises ValueError for one that nothing here needs."""
        if action not in ACTIONS.values():
            raise ValueError(f"action: got {action!r}, must be one of {', '.join(sorted(ACTIONS.values()))}")
        self._denied.add(action)

    def allow_all(self) -> None:
        """Give everything back."""
        self._denied.clear()

    def check(self, request: web.Request) -> None:
        """Raise ARM's 403 where the request's action is denied."""
        operation = getattr(request.match_info.handler, "__name__", "")
        fault = request.get(FAULT)
        action = ACTIONS.get(operation)
        forbidden = fault is not None and fault.mode == "forbidden"
        if action is None or not (forbidden or action in self._denied):
            return
        message = (
            f"The client '{CLIENT_ID}' with object id '{OBJECT_ID}' does not have authorization to perform "
            f"action '{action}' over scope '{request.path.removesuffix('/instanceView')}' or the scope is "
            "invalid. If access was recently granted, please refresh your credentials."
        )
        raise ArmError(403, "AuthorizationFailed", message)
