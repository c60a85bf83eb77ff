#!/usr/bin/env bash
# Listing the sockets of a busy machine with their owners: portolan against ss, lsof, netstat, fuser and somo.
#
#   sudo bench/socket_list.sh                          25 processes with 50,000 connected TCP sockets, 200 with
#                                                      100,000, then the machine as it is
#   RUNS=9 SIZES="25:1000" IDLE=no bench/socket_list.sh
#   USER_ID=65534 bench/socket_list.sh                 holders and contenders run as this ordinary user
#
# SIZES is a list of PROCESSES:PAIRS, a pair being two connected sockets. Needs root for a network namespace of its
# own. Peers are taken from PATH; those that are missing are named. The contenders take turns, so that what else the
# machine does falls on all of them; every ratio is between medians of one run. Output goes to /dev/null.
# PORTOLAN and MANY_SOCKETS (an example of portolan-host) are the programs to run, if they are not to be built.
set -euo pipefail
cd "$(dirname "$0")/.."
runs=${RUNS:-9}
sizes=${SIZES-"25:1000 200:250"}
user=${USER_ID:-0}

if [ -z "${PORTOLAN:-}" ] || [ -z "${MANY_SOCKETS:-}" ]; then
  cargo build --quiet --release --package portolan
  cargo build --quiet --release --package portolan-host --example many_sockets
  target=$(cargo metadata --format-version 1 --no-deps | sed 's/.*"target_directory":"\([^"]*\)".*/\1/')
  PORTOLAN=$target/release/portolan
  MANY_SOCKETS=$target/release/examples/many_sockets
fi

# Copies, so that an ordinary user can run them wherever the source stands.
dir=$(mktemp -d)
chmod 755 "$dir"
cp "$PORTOLAN" "$dir/portolan"
cp "$MANY_SOCKETS" "$dir/many_sockets"
space=portolan-bench-$$
clean_up() {
  # The holders end when their standard input closes.
  exec 9>&-
  if [ -n "${holder:-}" ]; then wait "$holder" || true; fi
  ip netns del "$space" || true
  rm -rf "$dir"
}
trap clean_up EXIT
ip netns add "$space"
ip netns exec "$space" ip link set lo up
ip netns exec "$space" sysctl -qw net.ipv4.ip_local_port_range="10000 65000"
ulimit -n 20000 || ulimit -n "$(ulimit -Hn)"
mkfifo "$dir/hold"

# Runs a command as the user, in the namespace or (without) on the machine.
as_user=()
if [ "$user" != 0 ]; then as_user=(setpriv --reuid "$user" --regid "$user" --clear-groups); fi
inside=(nsenter --net="/run/netns/$space" "${as_user[@]}")

many_contenders() {
  cat <<LIST
$dir/portolan list --all
ss -tunap
somo --json
netstat -tunap
lsof -nP -i
$dir/portolan list
ss -tlnp
$dir/portolan who 2000
fuser 2000/tcp
LIST
}
many_ratios="ss -tunap:portolan list --all,somo --json:portolan list --all,lsof -nP -i:portolan list --all"
many_ratios+=",netstat -tunap:portolan list --all,ss -tlnp:portolan list,fuser 2000/tcp:portolan who 2000"

idle_contenders() {
  cat <<LIST
$dir/portolan
ss -tulnp
somo --json
netstat -tulnp
lsof -nP -i
$dir/portolan --version
LIST
}
idle_ratios="ss -tulnp:portolan,somo --json:portolan,netstat -tulnp:portolan,lsof -nP -i:portolan"

for size in $sizes; do
  processes=${size%%:*} pairs=${size##*:}
  : >"$dir/ready"
  "${inside[@]}" "$dir/many_sockets" "$processes" "$pairs" 4 >"$dir/ready" <"$dir/hold" &
  holder=$!
  exec 9>"$dir/hold"
  for _ in $(seq 1200); do grep -q ready "$dir/ready" && break; sleep 0.1; done
  grep -q ready "$dir/ready" || { echo "the sockets could not be opened" >&2; exit 1; }
  echo "== $processes processes, $((processes * pairs * 2)) connected TCP sockets, uid $user, $runs turns"
  many_contenders | "${inside[@]}" python3 bench/take_turns.py "$runs" "$many_ratios" 9>&-
  exec 9>&-
  wait "$holder"
  holder=
done

if [ "${IDLE:-yes}" = yes ]; then
  echo "== the machine as it is: $(find /proc -maxdepth 1 -name '[0-9]*' | wc -l) processes, uid $user, $((runs * 5)) turns"
  idle_contenders | "${as_user[@]}" python3 bench/take_turns.py "$((runs * 5))" "$idle_ratios"
fi
