#!/usr/bin/env bash
# Listing the sockets of a busy machine with their owners: portolan against ss, lsof, netstat, fuser and somo.
#
#   bench/socket_list.sh            25 processes with 50,000 connected TCP sockets, then 200 with 100,000
#   RUNS=9 SIZES="25:1000" bench/socket_list.sh
#
# SIZES is a list of PROCESSES:PAIRS, a pair being two connected sockets. Needs root (a network namespace of its
# own), and the peers in PATH; those that are missing are named. Every figure of a line comes from one run: the
# contenders take turns, and the median of RUNS turns counts. Output goes to /dev/null.
set -euo pipefail
cd "$(dirname "$0")/.."
RUNS=${RUNS:-7}
SIZES=${SIZES:-"25:1000 200:250"}

cargo build --quiet --release --package portolan
cargo build --quiet --release --package portolan-host --example many_sockets
target=$(cargo metadata --format-version 1 --no-deps | sed 's/.*"target_directory":"\([^"]*\)".*/\1/')
portolan=$target/release/portolan
space=portolan-bench-$$
trap 'kill "${holder:-}" 2>/dev/null || true; ip netns del $space 2>/dev/null || true; rm -f "${ready:-}"' EXIT
ip netns add "$space"
ip netns exec "$space" ip link set lo up
ip netns exec "$space" sysctl -qw net.ipv4.ip_local_port_range="10000 65000"
ulimit -n 20000 2>/dev/null || ulimit -n "$(ulimit -Hn)"

# One contender a line: its name, then its command.
contenders() {
  cat <<LIST
portolan-all|$portolan list --all --tcp --udp --space host
ss-tunap|ss -tunap
netstat-tunap|netstat -tunap
lsof|lsof -nP -i
somo|somo --json
portolan-listeners|$portolan list --tcp --space host
ss-tlnp|ss -tlnp
portolan-who|$portolan who 2000 --tcp --space host
fuser|fuser 2000/tcp
LIST
}

for size in $SIZES; do
  processes=${size%%:*} pairs=${size##*:}
  ready=$(mktemp)
  ip netns exec "$space" "$target/release/examples/many_sockets" "$processes" "$pairs" 4 >"$ready" < <(sleep 3600) &
  holder=$!
  for _ in $(seq 600); do grep -q ready "$ready" && break; sleep 0.1; done
  grep -q ready "$ready" || { echo "the sockets could not be opened" >&2; exit 1; }
  echo "== $processes processes, $((processes * pairs * 2)) connected TCP sockets, median of $RUNS"
  contenders | ip netns exec "$space" python3 -c '
import resource, shutil, statistics, subprocess, sys, time
runs = int(sys.argv[1])
rows = [line.rstrip("\n").split("|") for line in sys.stdin]
missing = [name for name, command in rows if not shutil.which(command.split()[0])]
rows = [(name, command.split()) for name, command in rows if name not in missing]
times = {name: [] for name, _ in rows}
peak = {}
for turn in range(runs + 1):
    for name, command in rows:
        start = time.perf_counter()
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        usage = __import__("os").wait4(process.pid, 0)[2]
        if turn:  # the first turn warms the caches
            times[name].append(time.perf_counter() - start)
            peak[name] = max(peak.get(name, 0), usage.ru_maxrss)
median = {name: statistics.median(values) for name, values in times.items()}
for name, value in median.items():
    print(f"{name:20} {value * 1e3:9.1f} ms  (min {min(times[name]) * 1e3:.1f}, max {max(times[name]) * 1e3:.1f})  {peak[name] / 1024:.1f} MiB")
for ours, theirs in [("portolan-all", "ss-tunap"), ("portolan-all", "somo"), ("portolan-all", "lsof"), ("portolan-all", "netstat-tunap"), ("portolan-listeners", "ss-tlnp"), ("portolan-who", "fuser")]:
    if ours in median and theirs in median:
        print(f"{theirs} / {ours} = {median[theirs] / median[ours]:.1f}")
for name in missing:
    print(f"skipped: {name} is not installed")
' "$RUNS"
  kill "$holder" 2>/dev/null || true
  wait "$holder" 2>/dev/null || true
  pkill -f "examples/many_sockets $processes " 2>/dev/null || true
  rm -f "$ready"
done
