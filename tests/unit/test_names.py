"""Names: the grammar that stands between a VM, a tag or a request and everything that acts."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.builders import VM_ID, a_vm_id
from vm_health.names import is_token, is_unit_name, is_vm_id, vm_key


@pytest.mark.parametrize(
    "name",
    [
        "web.service",
        "app@blue.service",
        "dbus-org.freedesktop.resolve1.service",
        r"systemd-fsck@dev-disk-by\x2duuid.service",
        "a:b_c.timer",
        "my.socket",
        "multi-user.target",
        "var-lib.mount",
        "x" * 247 + ".service",
    ],
)
def test_systemd_unit_names(name: str) -> None:
    assert is_unit_name(name)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "web",
        ".service",
        "-x.service",
        "-.mount",
        "a;b.service",
        "$(x).service",
        "`x`.service",
        "a b.service",
        "a\tb.service",
        "web.service\n",
        "\nweb.service",
        "web.service\x00",
        "a/b.service",
        "../web.service",
        "a|b.service",
        "a&b.service",
        "a'b.service",
        'a"b.service',
        "a>b.service",
        "a*b.service",
        "a=b.service",
        "wéb.service",
        "web.service ",
        "web.service --now",
        "web.scope",
        "web.slice",
        "web.device",
        "web.SERVICE",
        "x" * 248 + ".service",
    ],
)
def test_no_other_name_is_acted_on(name: str) -> None:
    assert not is_unit_name(name)


@given(st.text(min_size=1, max_size=12))
def test_whatever_passes_is_safe_in_a_shell_and_as_an_argument(stem: str) -> None:
    name = f"{stem}.service"
    if is_unit_name(name):
        assert re.fullmatch(r"[\w:.@\\-]+", name, re.ASCII)
        assert not name.startswith("-")


@pytest.mark.parametrize(
    ("vm_id", "is_one"),
    [
        (VM_ID, True),
        (a_vm_id("db.2_x-y", "rg_a.b-(c)"), True),
        (VM_ID.upper(), False),
        (VM_ID.replace("rg-web", "RG-Web"), False),
        (VM_ID.replace("web-1", "Web-1"), False),
        (VM_ID + "/", False),
        (VM_ID + "/extensions/x", False),
        (VM_ID + "\n", False),
        (VM_ID.replace("web-1", "../../x"), False),
        (VM_ID.replace("web-1", "a?b"), False),
        (VM_ID.replace("web-1", "x" * 65), False),
        (VM_ID.replace("rg-web", "x" * 91), False),
        (VM_ID.replace("virtualmachines", "disks"), False),
        (VM_ID.replace("00000000-", "0000000g-"), False),
        ("", False),
    ],
)
def test_vm_ids(vm_id: str, is_one: bool) -> None:
    assert is_vm_id(vm_id) is is_one


@pytest.mark.parametrize(
    ("token", "is_one"),
    [
        ("20261124T120000-0a1b2c3d-7", True),
        ("x" * 64, True),
        ("x" * 65, False),
        ("", False),
        ("a b", False),
        ("a;b", False),
        ("a\n", False),
        ("a_b", False),
        ("ä", False),
    ],
)
def test_tokens(token: str, is_one: bool) -> None:
    assert is_token(token) is is_one


def test_vm_key_never_changes() -> None:
    """Rows written by one version must be found by the next."""
    assert vm_key(VM_ID) == "ad0387bbf34f6755e29f7533e52a35d6"


def test_vm_key_ignores_case_as_arm_does() -> None:
    assert vm_key(VM_ID.upper()) == vm_key(VM_ID)


@given(st.text(max_size=200))
def test_vm_key_is_safe_in_a_table(vm_id: str) -> None:
    assert re.fullmatch("[0-9a-f]{32}", vm_key(vm_id))


def test_different_vms_have_different_keys() -> None:
    assert len({vm_key(a_vm_id(f"vm-{number}")) for number in range(1_000)}) == 1_000
