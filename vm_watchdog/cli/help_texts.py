"""The words of ``--help`` below the arguments: what a command does, its exit codes, examples."""

DESCRIPTION = "Watches a fleet of Linux VMs from outside, restarts what is down, and says why."
EPILOG = """\
exit codes: 0 fine, 1 warning, 2 critical or failed, 3 unknown, 64 wrong arguments, 78 wrong configuration

examples:
  vm-watchdog status                                  how the fleet stands
  vm-watchdog history web-1 --at 03:12                why was this restarted at 03:12?
  vm-watchdog silence add --vm web-1 --for 2h --stops both --why "kernel update"
  vm-watchdog doctor --vm web-1                       is everything allowed that must be?
  vm-watchdog replay ticks.jsonl --policy new.toml    what would another policy have done?

Commands that ask Azure take the settings of the function app (WATCHDOG_*) from the environment, and the
identity that DefaultAzureCredential finds. replay, cost and policy check ask nobody and need no setting.
"""
TICK = """\
Prints the record of the tick. The whole fleet is looked at in this process, however large it is. Rechecks
and alerts are put on the queues: the function app, or `vm-watchdog run`, works them off.

exit codes: 0 fine, 1 some VMs could not be looked at, 2 the tick failed, 78 wrong settings

examples:
  vm-watchdog tick --record ticks.jsonl
  WATCHDOG_MODE=observe vm-watchdog tick --json | jq .statuses
"""
RUN = """\
Ticks on a fixed schedule and works off the queues (recheck, shards, alerts), as the function app does; for a
container, a systemd service or a laptop. Two of them may run beside each other, or beside the function app. A
tick that fails is logged and the next one comes. A message that fails comes back later and later; after five
takes it goes to the queue's poison queue. SIGTERM and SIGINT let the work in hand end; a second one does not.
The log goes to stderr, with --json as one JSON object a line.

exit codes: 0 ended by a signal, 78 wrong settings

examples:
  vm-watchdog run --every 60 --listen 127.0.0.1:8080
  curl -f http://127.0.0.1:8080/api/live
"""
STATUS = """\
exit codes: 0 all fine, 1 a warning or a freeze, 2 a VM is CRITICAL, 3 unknown: also where no tick has ended
lately, for then nothing that is shown is news

example:
  vm-watchdog status --json | jq '.needing[] | {name, cause, reason}'
"""
EXPLAIN = """\
Looks at the VM as a tick would (Azure, telemetry, endpoint), says what it would conclude and do, and what
would hold that back. Saves nothing and does nothing.

exit codes: 0 HEALTHY, 1 WARNING, 2 CRITICAL, 3 everything else

example:
  vm-watchdog explain web-1
"""
HISTORY = """\
Newest last. `history fleet` shows what concerns no single VM: freezes, silences of many. With --at it shows
the decision nearest to that time: the evidence, the limits, what was sent and what came back.

exit codes: 0, 2 no such VM or nothing at that time, 3 unknown

examples:
  vm-watchdog history web-1 --since 2h
  vm-watchdog history web-1 --at 03:12
  vm-watchdog history web-1 --at 2026-11-24T03:12:00Z --json
"""
WOULD_HAVE = """\
Restarts that were due and not made: in observe mode, frozen, silenced, flapping, over budget.

exit codes: 0, 3 unknown

example:
  vm-watchdog would-have --days 30 --json
"""
RESTART = """\
The same budget, freezes, silences and audit hold as for the watchdog's own restarts; flapping and an open
circuit don't, for a person is what they wait for. Whether it helped stands in the history soon after.

exit codes: 0 sent, 2 refused or failed (stderr says why), 64 wrong arguments

example:
  vm-watchdog restart web-1 nginx.service --why "new certificate"
"""
THAW = """\
For when the watchdog has frozen all action and you know better. At most a day.

exit codes: 0, 2 failed, 64 wrong arguments

example:
  vm-watchdog thaw --for 1h --why "half of the fleet is being rebuilt on purpose"
"""
SILENCE_DESCRIPTION = "Keep alerts, action or both from some VMs for a time; both together is maintenance."
SILENCE_ADD = """\
Every matcher that is given must fit; at least one must be, or --all. 90 days at most.

exit codes: 0, 2 failed, 64 wrong arguments

examples:
  vm-watchdog silence add --vm web-1 --for 2h --why "disk swap"
  vm-watchdog silence add --group 'batch-*' --until 2026-12-01T06:00:00Z --stops both --why "migration"
  vm-watchdog silence add --tag team=data --from 1h --for 30m --stops action --why "load test"
"""
SILENCE_LIST = """\
Maintenance windows of the policy are among them while they are in force.

exit codes: 0, 3 unknown

example:
  vm-watchdog silence list --json | jq '.silences[] | select(.is_active)'
"""
SILENCE_END = """\
exit codes: 0, 2 no such silence or failed

example:
  vm-watchdog silence end 5f0c1e9ab2d34c77
"""
REPLAY = """\
Needs no Azure and changes nothing. Every VM is judged by itself: freezes, budgets and silences are not
replayed. The world stays as recorded: a restart that only this policy would have made helps nobody in it. A
look that this policy asks for where none was recorded takes what was seen last, and is marked with ~.

exit codes: 0, 78 the recording or a policy can't be used (each fault with its line and field)

examples:
  vm-watchdog replay ticks.jsonl
  vm-watchdog replay ticks.jsonl --policy new.toml --against watchdog.toml --vm web-1
"""
DOCTOR = """\
Tries everything that the watchdog will do, all at once, and leaves nothing behind. Without --vm no command is
run on any VM; without --alert nobody is alerted. A refusal names the role that is missing and on what.

exit codes: 0 all is well, 1 a warning, 2 a check failed, 78 wrong settings

examples:
  vm-watchdog doctor
  vm-watchdog doctor --vm web-1 --alert --json | jq '.checks[] | select(.verdict != "ok")'
"""
COST = """\
US list prices with their date, and every assumption, are printed. Sizes are those of a typical report as it
is really encoded. Needs no Azure.

exit codes: 0

examples:
  vm-watchdog cost --vms 200
  vm-watchdog cost --vms 1,10,100,1000,10000 --markdown
"""
POLICY_DESCRIPTION = "Check the policy (watchdog.toml); show what applies to a VM and from where."
POLICY_CHECK = """\
exit codes: 0, 78 with every fault

example:
  vm-watchdog policy check watchdog.toml
"""
POLICY_SHOW = """\
exit codes: 0, 3 unknown, 64 wrong arguments, 78 the policy can't be used

examples:
  vm-watchdog policy show web-1
  vm-watchdog policy show --name web-1 --group web --tag watchdog-ladder=vm-restart --file new.toml
"""
