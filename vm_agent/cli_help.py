"""The words of ``vm-agent --help`` and of its commands. Text only."""

from __future__ import annotations

DESCRIPTION = "Watches this VM's services, disks, memory and heartbeat files, serves /health and reports."
EPILOG = """\
examples:
  vm-agent check                                     look once: exit code 0 healthy, 1 warning, 2 critical
  VM_AGENT_UNITS=nginx,postgresql vm-agent check     the same with services that must be up
  vm-agent check --json | jq .findings               the same for programs
  sudo vm-agent install --units nginx --dry-run      what makes it a service; without --dry-run: do it
  vm-agent status                                    ask the running service: findings, repairs, telemetry
  sudo vm-agent lock --minutes 20                    for a deployment: no restart, no alert
  curl -i http://127.0.0.1:8080/health               200 while it works, 503 when it does not

settings come from the environment (VM_AGENT_*) and from /etc/vm-agent/agent.toml; `vm-agent run --help`
lists them. Without any it watches disks and memory.
"""
CHECK_EPILOG = """\
exit codes: 0 HEALTHY, 1 WARNING, 2 CRITICAL, 3 not known (settings, for one)

--restart restarts units of VM_AGENT_UNITS that are down and in the allow-list, with the backoff of the
watchdog: 10, 20, 40, 80, 160, 300 s, six attempts, from the start after 10 stable minutes. It waits for the
first step itself; later ones are due at later looks. What was stopped by hand stays stopped. Without the
flag a check restarts nothing, whatever VM_AGENT_RESTART says: that is for `run`.

--alert posts to VM_AGENT_ALERT_WEBHOOK_URL when the status has changed for good, and again until it is taken.

examples:
  vm-agent check --json
  */2 * * * *  root  vm-agent check --restart --alert >/dev/null      in /etc/cron.d, without the service
"""
STATUS_EPILOG = """\
exit codes: as check, of what the running agent says; 3 where it does not answer

example:
  vm-agent status --json | jq .repairs
"""
INSTALL_EPILOG = """\
Makes the user vm-agent, /etc/vm-agent/agent.toml (kept if it is there), the allow-list with the given units
added, the systemd unit and the polkit rule that lets that user restart exactly these units; then starts the
service and waits until it answers. May be repeated: nothing that is right already is touched.

examples:
  sudo vm-agent install --units nginx,postgresql --restart
  sudo APPLICATIONINSIGHTS_CONNECTION_STRING=... vm-agent install --units nginx
  vm-agent install --units nginx --dry-run
  sudo vm-agent install --units nginx --root /mnt/image      files only, for a machine image
"""
REMEDIATE_EPILOG = """\
Meant to be called as root by Azure Run Command, which gives UNIT and TOKEN as variables. Restarts the
unit only if /etc/vm-agent/allow-units names it and the token was never used. Prints one line,
VM_AGENT_RESULT {"result": "restarted|refused|duplicate|failed", ...}.

exit codes: 0 restarted, 4 refused, 5 duplicate token, 6 failed

example:
  vm-agent remediate --unit nginx.service --token 2026-11-24-1
"""
LOCK_EPILOG = """\
For deployments: while the lock holds, the agent restarts nothing and sends no alert, and the watchdog in
Azure leaves this VM alone. What is down is still reported. A lock ends by itself, an hour after it was
written at the latest, and with a reboot; a new one takes the place of the old.

examples:
  sudo vm-agent lock --minutes 20 --holder "release 1.2"
  sudo vm-agent lock && deploy.sh; sudo vm-agent unlock
"""
UNLOCK_EPILOG = """\
Ends what `vm-agent lock` began. No lock being there is no error.

example:
  sudo vm-agent unlock
"""
