"""The fixed parts of the page for people: its style and the guide. ``{base}`` is the endpoint's URL."""

from __future__ import annotations

STYLE = """
:root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif; --line: #8884; --quiet: #595f66;
  --HEALTHY: #1e7d3c; --WARNING: #9a5b00; --CRITICAL: #b3261e; --UNKNOWN: #5f6368; }
@media (prefers-color-scheme: dark) { :root { --quiet: #a3abb3; --HEALTHY: #6fcf8e; --WARNING: #f0b45a;
  --CRITICAL: #ff8a80; --UNKNOWN: #b0b6bc; } }
body { max-width: 56rem; margin: 0 auto; padding: 1rem; overflow-wrap: anywhere; }
header { border-left: .4rem solid var(--UNKNOWN); padding-left: .9rem; }
header p { margin: 0; } h1 { font-size: 1.6rem; line-height: 1.2; margin: .2rem 0; }
h2 { font-size: 1.05rem; margin: 1.6rem 0 .4rem; } h3 { font-size: 1rem; margin: 1.1rem 0 .2rem; }
.quiet { color: var(--quiet); font-size: .9rem; } .status { font-weight: 700; margin-right: .4rem; }
ul { list-style: none; margin: 0; padding: 0; border-top: 1px solid var(--line); }
li { display: grid; grid-template-columns: minmax(0, 15rem) minmax(0, 1fr); gap: 0 1rem;
  padding: .45rem .7rem;
  border-bottom: 1px solid var(--line); border-left: .25rem solid transparent; }
li p { display: flex; flex-wrap: wrap; gap: 0 1rem; margin: 0; font-variant-numeric: tabular-nums; }
header.HEALTHY, li.HEALTHY { border-left-color: var(--HEALTHY); } .HEALTHY .status { color: var(--HEALTHY); }
header.WARNING, li.WARNING { border-left-color: var(--WARNING); } .WARNING .status { color: var(--WARNING); }
header.CRITICAL, li.CRITICAL { border-left-color: var(--CRITICAL); }
.CRITICAL .status { color: var(--CRITICAL); }
header.UNKNOWN, li.UNKNOWN { border-left-color: var(--UNKNOWN); } .UNKNOWN .status { color: var(--UNKNOWN); }
meter { width: 7rem; height: .8rem; vertical-align: middle; --bar: #5b7fa6; }
.WARNING meter { --bar: var(--WARNING); } .CRITICAL meter { --bar: var(--CRITICAL); }
meter::-webkit-meter-optimum-value { background: var(--bar); }
meter::-moz-meter-bar { background: var(--bar); }
code, pre { font: .875rem/1.5 ui-monospace, monospace; } code { color: var(--quiet); }
pre { border: 1px solid var(--line); padding: .6rem .8rem; overflow-x: auto; white-space: pre-wrap; }
footer { margin-top: 2.5rem; border-top: 1px solid var(--line); }
footer > p { margin: .3rem 0; max-width: 42rem; }
@media (max-width: 36rem) { li { display: block; } }
"""

# Browsers apply the style by this, so that the page needs no "unsafe-inline"; a test holds the two together.
STYLE_HASH = "sha256-W6PclQkwXcEwOrxFqAABttvnOIyNRqUv6amXGgSPvZI="

GUIDE = """\
<footer>
<h2>What else is here</h2>
<h3><a href="/health">/health</a></h3>
<p>The whole report as JSON. Answers 200 while the VM is HEALTHY or has a WARNING, 503 when it is CRITICAL or
nobody knows (no sample lately). <a href="/health?strict=1">/health?strict=1</a> answers 503 for a WARNING
too. It never asks for the token.</p>
<h3><a href="/metrics">/metrics</a></h3>
<p>The numbers as JSON. Prometheus gets its own format unasked; to see it:
<a href="/metrics?format=prometheus">?format=prometheus</a>,
<a href="/metrics?format=openmetrics">?format=openmetrics</a>. Its names are those of the JSON in its own
manner:</p>
<ul>
<li><b>health.disk_usage</b><p><code>vm_health_disk_usage_percent{mount="/"}</code></p></li>
<li><b>health.memory_usage</b><p><code>vm_health_memory_usage_percent</code></p></li>
<li><b>health.heartbeat_age</b><p><code>vm_health_heartbeat_age_seconds{path="/run/x"}</code></p></li>
<li><b>health.crash_count</b><p><code>vm_health_recent_restarts{unit="nginx.service"}</code></p></li>
<li><b>health.service_active</b><p><code>vm_health_service_active{unit="nginx.service"}</code></p></li>
<li><b>status</b><p><code>vm_health_status{status="HEALTHY"} 1</code></p></li>
</ul>
<pre>scrape_configs:
  - job_name: vm-agent
    static_configs: [{targets: ["&lt;this VM&gt;:8080"]}]
    # authorization: {credentials: "&lt;VM_AGENT_TOKEN, where one is set&gt;"}</pre>
<h3>UptimeRobot and other monitors</h3>
<p>Add a monitor of type HTTP(s) with the URL</p>
<pre>{base}/health</pre>
<p>and leave the rest as it is: GET and HEAD do, 200 is up and 503 is down. Take
<code>/health?strict=1</code> to be told of warnings. The port must be open to the monitor's addresses, and to
them only.</p>
<h3>From a shell</h3>
<pre>curl -i {base}/health
curl {base}/</pre>
<p>This page renews itself and shows the last sample; opening it looks at nothing anew.</p>
</footer>
"""
