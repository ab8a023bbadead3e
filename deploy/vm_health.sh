#!/usr/bin/env bash
# One look at this VM, for people and cron: a friendly front of `vm-agent check`, which does all the work.
set -euo pipefail

usage() {
  cat <<'HELP'
usage: vm_health.sh [--restart] [--alert] [--json] [--help]

Looks once at this VM and says how it is:
  services      up, or down and why; more than 5 restarts within 15 minutes (crash loop)
  logs          recent errors in a unit's journal or in a log file
  disks         over 80 % full is a warning, over 90 % critical; inodes too
  memory        over 90 % in use
  git           a deployed checkout that has local changes or is behind its upstream
  heartbeats    files that a service touches: missing, or older than 5 minutes

  --restart     restart services that are down, with growing waits between attempts; only those in
                /etc/vm-agent/allow-units, so it needs root or the polkit rule
  --alert       send what is wrong to the configured channel
  --json        the report for programs, as /health serves it
  --help        this text

exit codes: 0 healthy, 1 warning, 2 critical or not known
  (`vm-agent check` says 3 for "not known"; here that is 2, so that nobody takes it for a warning.)

settings: VM_AGENT_* in the environment, else in /etc/vm-agent/agent.env as the service has them, else in
  /etc/vm-agent/agent.toml. The ones asked for most:
    VM_AGENT_UNITS=nginx,postgresql          services to look at
    VM_AGENT_HEARTBEAT_FILES=/run/x/beat     files that must be fresh
    VM_AGENT_DISK_MOUNTS=/,/data             where disks are measured
  `vm-agent run --help` lists all. Colours appear on a terminal only, never with NO_COLOR set.

examples:
  VM_AGENT_UNITS=nginx vm_health.sh
  vm_health.sh --json | jq .findings
  */5 * * * *  root  /opt/vm-agent/vm_health.sh --restart --alert >/dev/null
HELP
}

fail() {
  printf 'vm_health.sh: %s\n' "$1" >&2
  exit 2
}

arguments=()
for argument in "$@"; do
  case $argument in
    --restart | --alert | --json) arguments+=("$argument") ;;
    --help | -h)
      usage
      exit 0
      ;;
    *) fail "unknown argument '$argument', must be --restart, --alert, --json or --help" ;;
  esac
done

# The service's settings, for those that the environment does not give. The file is systemd's and not a script:
# its lines are read, never run.
environment_file=/etc/vm-agent/agent.env
load_settings() {
  local line name value
  while IFS= read -r line || [[ -n $line ]]; do
    [[ $line =~ ^[[:space:]]*([A-Z][A-Z0-9_]*)=(.*)$ ]] || continue
    name=${BASH_REMATCH[1]}
    value=${BASH_REMATCH[2]%"${BASH_REMATCH[2]##*[![:space:]]}"}
    [[ $name == VM_AGENT_* || $name == APPLICATIONINSIGHTS_CONNECTION_STRING || $name == SSL_CERT_FILE ]] || continue
    [[ -z ${!name+set} ]] || continue
    if [[ $value == \"*\" && ${#value} -ge 2 ]]; then
      value=${value:1:-1}
      # Inside double quotes a backslash keeps its place before all but these (systemd.exec(5)).
      # shellcheck disable=SC2001
      value=$(sed -e 's/\\\([\\"$`]\)/\1/g' <<<"$value")
    elif [[ $value == \'*\' && ${#value} -ge 2 ]]; then
      value=${value:1:-1}
    fi
    export "$name=$value"
  done <"$environment_file"
}
if [[ -r $environment_file ]]; then
  load_settings
elif [[ -e $environment_file ]]; then
  printf 'vm_health.sh: %s is not readable for %s, so the settings of the service are not used\n' \
    "$environment_file" "$(id -un)" >&2
fi

# Installed, or on PATH, or the checkout that this file belongs to.
checkout=$(cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/.." && pwd)
if [[ -x /opt/vm-agent/bin/vm-agent ]]; then
  agent=(/opt/vm-agent/bin/vm-agent)
elif command -v vm-agent >/dev/null 2>&1; then
  agent=(vm-agent)
elif [[ -d $checkout/vm_agent ]]; then
  python=$checkout/.venv/bin/python
  [[ -x $python ]] || python=python3
  command -v "$python" >/dev/null 2>&1 || fail "python3 is missing, and no vm-agent is installed"
  agent=("$python" -m vm_agent)
  export PYTHONPATH="$checkout${PYTHONPATH:+:$PYTHONPATH}"
else
  fail "vm-agent is not installed: not in /opt/vm-agent/bin, not on PATH, and no checkout beside this file"
fi

code=0
"${agent[@]}" check ${arguments[@]+"${arguments[@]}"} || code=$?
case $code in
  0 | 1 | 2) exit "$code" ;;
  *) exit 2 ;;
esac
