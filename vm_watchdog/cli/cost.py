"""``cost``: the monthly bill as a table, for one fleet with its parts or for several side by side."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

from vm_watchdog.cli.call import Call
from vm_watchdog.cli.output import EXIT_OK, table
from vm_watchdog.cost import ASSUMED, NOT_COUNTED, PRICES_OF, Estimate, Fleet, Part, estimate


def run(call: Call) -> int:
    """Estimate the bill of one fleet, or of several."""
    arguments = call.arguments
    estimates = [
        estimate(
            Fleet(
                vms,
                arguments.interval,
                arguments.probe,
                arguments.report_seconds,
                arguments.metrics_seconds,
                arguments.units,
            )
        )
        for vms in arguments.vms
    ]
    document = {
        "prices": PRICES_OF,
        "estimates": [_document(one) for one in estimates],
        "assumptions": asdict(estimates[0].assumptions),
        "not_counted": list(NOT_COUNTED),
    }
    if arguments.markdown:
        lines: Iterator[str] = markdown(estimates)
    elif len(estimates) == 1:
        lines = _bill(estimates[0])
    else:
        lines = iter(table(_columns(estimates)))
    call.output.give(document, lines)
    return EXIT_OK


def markdown(estimates: Sequence[Estimate]) -> Iterator[str]:
    """Return several fleets as a Markdown table, USD a month."""
    rows = _columns(estimates)
    yield "| " + " | ".join(rows[0]) + " |"
    yield "|" + "|".join(["---"] + ["--:"] * len(estimates)) + "|"
    yield from ("| " + " | ".join(row) + " |" for row in rows[1:])


def _columns(estimates: Sequence[Estimate]) -> list[list[str]]:
    names = [part.name for part in estimates[0].parts]
    rows = [
        ["USD a month", *(f"{one.fleet.vms:,} VM{'s' if one.fleet.vms > 1 else ''}" for one in estimates)]
    ]
    for index, name in enumerate(names):
        rows.append([name, *(_usd(one.parts[index].usd) for one in estimates)])
    rows.append(["All of it", *(_usd(one.usd) for one in estimates)])
    rows.append(["for one VM", *(_usd(one.usd / one.fleet.vms) for one in estimates)])
    return rows


def _bill(found: Estimate) -> Iterator[str]:
    fleet = found.fleet
    probes = "with probes" if fleet.probes else "without probes"
    yield (
        f"{fleet.vms:,} VMs with {fleet.units} units, looked at every {fleet.interval_seconds:g} s {probes}:"
        f" {_usd(found.usd)} USD a month, {_usd(found.usd / fleet.vms)} a VM"
    )
    yield ""
    rows = [["part", "a month", "free", "USD", "how"], *(_row(part) for part in found.parts)]
    yield from table(rows)
    yield ""
    yield f"prices: {PRICES_OF}; (?) could not be verified"
    yield "assumed:"
    values = asdict(found.assumptions)
    yield from (
        f"  {line}" for line in table([(f"{values[name]:g}", text) for name, text in ASSUMED.items()])
    )
    yield "not counted:"
    yield from (f"  {text}" for text in NOT_COUNTED)


def _row(part: Part) -> list[str]:
    mark = "" if part.price.verified else " (?)"
    free = f"{part.price.free:,g}" if part.price.free else "-"
    return [part.name, f"{part.quantity:,.1f} {part.price.unit}", free, f"{_usd(part.usd)}{mark}", part.how]


def _document(found: Estimate) -> dict[str, Any]:
    return {
        **asdict(found.fleet),
        "usd": round(found.usd, 2),
        "usd_a_vm": round(found.usd / found.fleet.vms, 4),
        "tick_seconds": round(found.tick_seconds, 3),
        "report_bytes": found.report_bytes,
        "parts": [
            {
                "name": part.name,
                "quantity": round(part.quantity, 3),
                "unit": part.price.unit,
                "free": part.price.free,
                "billed": round(part.billed, 3),
                "price_usd": part.price.usd,
                "price_per": part.price.per,
                "price_verified": part.price.verified,
                "usd": round(part.usd, 4),
                "how": part.how,
            }
            for part in found.parts
        ],
    }


def _usd(amount: float) -> str:
    return f"{amount:,.2f}"
