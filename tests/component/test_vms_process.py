"""A simulated VM of plain processes, and its stand-in for systemd."""

from __future__ import annotations

import asyncio
import os
import subprocess
import time

import pytest

from devcloud.vms.factory import Kind
from devcloud.vms.units import UnitFile, command_line, parse_unit, words
from tests.component.vm_fixtures import (
    APP,
    HOSTILE_VALUES,
    LOOP,
    VmContract,
    Vms,
    eventually,
    gone,
    parent_of,
    vms,
)

__all__ = ["vms"]


class TestProcessVm(VmContract):
    """The contract, and what is special to this kind."""

    kind: Kind = "process"

    async def test_agent_sees_only_its_own_systemctl(self, vms: Vms) -> None:
        """The stand-in comes first on PATH, and answers for all units in one call."""
        vm = await vms.start()
        script = (
            "command -v systemctl; systemctl show --no-pager --property=Id,LoadState -- app nope.service loop"
        )
        result = await vm.run_script(script, {}, 10)
        assert result.stdout == (
            f"{vm.inside('/usr/bin/systemctl')}\n"
            "Id=app.service\nLoadState=loaded\n\nId=nope.service\nLoadState=not-found\n\n"
            "Id=loop.service\nLoadState=loaded\n"
        )

    async def test_times_are_in_the_callers_zone(self, vms: Vms) -> None:
        """TZ of the caller decides, as with the real command."""
        vm = await vms.start()
        show = "systemctl show -p ActiveEnterTimestamp app"
        result = await vm.run_script(f"TZ=UTC {show}; TZ=Asia/Tokyo {show} --timestamp=unix", {}, 10)
        pretty, unix = (line.partition("=")[2] for line in result.stdout.splitlines())
        assert unix.startswith("@")
        expected = time.strftime("%a %Y-%m-%d %H:%M:%S UTC", time.gmtime(int(unix[1:])))
        assert pretty == expected
        assert abs(time.time() - int(unix[1:])) < 60

    async def test_systemctl_is_fast(self, vms: Vms) -> None:
        """One look costs less than 40 ms, the best of several on a busy machine."""
        vm = await vms.start()
        durations = [await asyncio.to_thread(timed, vm.inside("/usr/bin/systemctl")) for _ in range(7)]
        assert min(durations) < 0.040

    async def test_supervisor_killed_takes_its_services_along(self, vms: Vms) -> None:
        """The VM then counts as stopped, and can be started again."""
        vm = await vms.start()
        worker = await vm.main_pid(APP)
        os.kill(parent_of(worker), 9)
        await gone(worker)

        async def stopped() -> bool:
            return vm.power_state == "stopped"

        await eventually(stopped, "the power state is 'stopped'")
        await vm.start()
        assert await vm.main_pid(APP) not in (0, worker)

    async def test_auto_restart_is_visible(self, vms: Vms) -> None:
        """Between crash and restart the unit is activating/auto-restart, as monitoring must expect."""
        slow = UnitFile(LOOP, command_line(["/bin/false"]), restart="on-failure", restart_seconds=30)
        vm = await vms.start(slow)

        async def waiting() -> bool:
            shown = await vm.unit_properties(LOOP)
            return (shown["ActiveState"], shown["SubState"]) == ("activating", "auto-restart")

        await eventually(waiting, "auto-restart")
        shown = await vm.unit_properties(LOOP)
        assert (shown["Result"], shown["ExecMainStatus"], shown["NRestarts"]) == ("exit-code", "1", "0")
        assert (await vm.systemctl("stop", LOOP)).exit_code == 0
        assert (await vm.unit_properties(LOOP))["ActiveState"] in ("inactive", "failed")


def timed(systemctl: str) -> float:
    begun = time.perf_counter()
    subprocess.run([systemctl, "show", APP], check=True, capture_output=True)
    return time.perf_counter() - begun


@pytest.mark.parametrize("value", HOSTILE_VALUES.values(), ids=HOSTILE_VALUES)
def test_unit_file_keeps_every_word(value: str) -> None:
    """What is written into a unit file is read back unchanged."""
    unit = UnitFile("a.service", command_line(["run", value, "$HOME %n"]), environment={"X": value})
    settings = parse_unit(unit.name, unit.text({}))
    assert settings.command == ("run", value, "$HOME %n")
    assert settings.environment == {"X": value}


def test_unit_file_names_all_its_faults() -> None:
    """A bad unit file is refused with each fault at once."""
    with pytest.raises(ValueError, match=r"name.*'../x'.*restart.*'sometimes'.*environment.*'A B'"):
        UnitFile("../x", "true", restart="sometimes", environment={"A B": ""})


def test_words_split_as_systemd_does() -> None:
    """Quotes hold together, escapes count, an empty word stays."""
    assert words(r"""a "b c" 'd"e' f\ng "" 100%%""") == ["a", "b c", 'd"e', "f\ng", "", "100%"]
