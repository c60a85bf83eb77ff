#!/bin/bash
# What `portolan run` costs, beside pasta, slirp4netns and a bare veth pair: bench/space.sh [WHAT…]
#
# WHAT is any of throughput, latency, connections, datagrams, memory, start; without it all of them. Needs root, and makes
# a namespace that is the host, with a non-loopback address; there each contender runs as an ordinary user with a TUN
# device that may be opened. Contenders take turns within each round, and medians are printed. A peer that is not
# installed, or does not come up, is left out and named. "in" is the host dialling the space, "out" the reverse, "by
# loopback" the host dialling 127.0.0.1. CPU is that of the contender's process, the kernel's work in its name included.
#
#   ROUNDS=5 SECONDS_EACH=1      how often, how long
#   PASTA=pasta SLIRP=slirp4netns PORTOLAN=target/release/portolan      what to run
#   CONTENDERS="veth-1500 portolan-1500 …"      which; behind the name is the MTU. rules-1500 is portolan with a policy
#                                               of 10,000 rules
#   CONNECTIONS=10000            how many are held for the figures of memory
set -u
cd "$(dirname "$0")/.." || exit 1
rounds=${ROUNDS:-5} seconds=${SECONDS_EACH:-1} pasta=${PASTA:-pasta} slirp=${SLIRP:-slirp4netns} held=${CONNECTIONS:-10000}
contenders=${CONTENDERS:-veth-1500 portolan-1500 portolan-65520 rules-1500 pasta-1500 pasta-65520 slirp-1500 slirp-65520}
[ $# -gt 0 ] || set -- throughput latency connections datagrams memory start
[ "$(id -u)" -eq 0 ] || { echo "bench/space.sh needs root, to make namespaces"; exit 2; }
if [ -z "${PORTOLAN:-}" ]; then cargo build --release -q -p portolan || exit 1; fi
cargo build --release -q -p portolan-gateway --example load || exit 1
portolan=${PORTOLAN:-$PWD/target/release/portolan} work=$(mktemp -d) host=plb$$ side=plc$$
chmod 755 "$work"
ulimit -n "$(ulimit -Hn)"
# What keeps a space open, under a name that nobody else has.
keeper=keep$$
cp "$(command -v sleep)" "$work/$keeper"
cp "$portolan" "$work/portolan" && portolan=$work/portolan
cp target/release/examples/load "$work/" && load=$work/load
mknod "$work/tun" c 10 200 && chmod 666 "$work/tun"
mkdir -m 700 "$work/runtime" && chown 65534:65534 "$work/runtime"
# Of 10,000 rules the last allows what is measured.
seq 0 9998 | awk '{ printf "allow 198.18.%d.%d:443\n", $1 / 256, $1 % 256 }' >"$work/rules"
echo "allow 10.99.1.1" >>"$work/rules"
started=()

# Ends what was started. A program in a PID namespace of its own ends by SIGKILL alone, and may hold the ports of a peer.
stop() {
    local pid
    kill "${started[@]}" 2>/dev/null
    sleep 0.2
    for pid in "${started[@]}" $(pgrep -x "$keeper"); do kill -9 "$pid" 2>/dev/null; done
    wait 2>/dev/null
    started=()
    rm -f "$work/runtime/slirp"
    ip netns del $side 2>/dev/null
    ip -n $host link del v0 2>/dev/null
    wait_for 5 ports_free
}
trap 'stop; ip netns del $host; rm -rf "$work"' EXIT

# wait_for SECONDS COMMAND...: until the command succeeds.
wait_for() {
    local until=$((SECONDS + $1))
    shift
    until "$@"; do
        [ $SECONDS -le $until ] || return 1
        sleep 0.02
    done
}
ports_free() { [ -z "$($on_host ss -Hltn 'sport >= :7000 and sport <= :8009' 2>/dev/null)" ]; }

ip netns add $host
ip -n $host link set lo up
ip -n $host link add d0 type veth peer name d1
ip -n $host addr add 10.99.0.1/24 dev d0
ip -n $host link set d0 up
ip -n $host link set d1 up
ip -n $host route add default via 10.99.0.254
ip -n $host addr add 10.99.1.1/32 dev lo
on_host="ip netns exec $host"
# An address of the host that is not loopback, as a client from elsewhere would use.
address=10.99.1.1
host_net=$($on_host readlink /proc/self/ns/net)

background() {
    "$@" >"$work/log" 2>&1 </dev/null &
    started+=($!)
}

# as_user COMMAND...: on the host, as somebody who is not root and may open the TUN device.
as_user() {
    # shellcheck disable=SC2016
    exec ip netns exec $host unshare --mount sh -c '
        mount --bind "$0/tun" /dev/net/tun
        export XDG_RUNTIME_DIR=$0/runtime
        exec setpriv --reuid 65534 --regid 65534 --clear-groups "$@"' "$work" "$@"
}

# The process that keeps the contender's space open, as `space`. One that has ended has no namespace, until it is reaped.
in_space() {
    local net
    for space in $(pgrep -x "$keeper"); do
        net=$(readlink "/proc/$space/ns/net") && [ "$net" != "$host_net" ] && return
    done
    return 1
}
below() {
    wait_for 5 in_space && return
    echo "left out this time: $1 did not start: $(tail -n 3 "$work/log")" >&2
    return 1
}

# up CONTENDER: sets inside (prefix of commands in the space), to (address that leads in), from (address of the host as
# seen from inside) and engine (its process, or nothing).
up() {
    local name=${1%-*} mtu=${1##*-}
    local -a policy=()
    engine='' to=$address from=$address
    case $name in
    veth)
        ip netns add $side
        ip -n $host link add v0 mtu "$mtu" type veth peer name v1 netns $side
        ip -n $host addr add 10.98.0.1/24 dev v0
        ip -n $host link set v0 up
        ip -n $side addr add 10.98.0.2/24 dev v1
        ip -n $side link set v1 up mtu "$mtu"
        ip -n $side link set lo up
        inside="ip netns exec $side" to=10.98.0.2 from=10.98.0.1
        return
        ;;
    portolan | rules)
        [ "$name" = portolan ] || policy=(--policy "$work/rules")
        background as_user "$portolan" run --mtu "$mtu" "${policy[@]}" -p 7000-7004:7000-7004/both -- "$work/$keeper" 1000
        engine=${started[-1]}
        below "$1" || return
        ;;
    pasta)
        background as_user "$pasta" -f --config-net --mtu "$mtu" -t 7000-7004 -u 7000-7004 -T none -U none -- "$work/$keeper" 1000
        engine=${started[-1]}
        below "$1" || return
        ;;
    slirp)
        background as_user unshare --user --map-root-user --net "$work/$keeper" 1000
        below "$1" || return
        background as_user "$slirp" --configure --mtu="$mtu" --api-socket "$work/runtime/slirp" "$space" tap0
        engine=${started[-1]}
        if ! wait_for 5 slirp_is_up || ! forward; then
            echo "left out this time: $1 did not start: $(tail -n 3 "$work/log")" >&2
            return 1
        fi
        ;;
    esac
    inside="nsenter -t $space -n"
    sleep 0.3
}
slirp_is_up() { [ -S "$work/runtime/slirp" ] && nsenter -t "$space" -n ip -br addr show tap0 2>/dev/null | grep -q 10.0.2.100; }

# Asks slirp4netns to forward the ports, both protocols.
forward() {
    python3 - "$work/runtime/slirp" <<'P'
import json, socket, sys
for port in range(7000, 7005):
    for protocol in "tcp", "udp":
        s = socket.socket(socket.AF_UNIX)
        s.settimeout(2)
        s.connect(sys.argv[1])
        arguments = {"proto": protocol, "host_addr": "0.0.0.0", "host_port": port, "guest_addr": "10.0.2.100", "guest_port": port}
        s.sendall(json.dumps({"execute": "add_hostfwd", "arguments": arguments}).encode())
        s.shutdown(socket.SHUT_WR)
        s.recv(1024)
P
}

# note CONTENDER FIGURE VALUE
note() { printf '%s\t%s\t%s\n' "$1" "$2" "$3" >>"$work/figures"; }
value() { sed -n "s/.*\b$1=\([^ ]*\).*/\1/p"; }
resident() { awk '/^VmRSS/ { print $2 }' "/proc/$engine/status"; }

# Runs a client, of the host or of the space: client in|out|loopback COMMAND...
client() {
    local way=$1
    shift
    case $way in
    out) timeout 60 $inside "$@" ;;
    *) timeout 60 $on_host "$@" ;;
    esac
}
target() { case $1 in in) echo "$to" ;; out) echo "$from" ;; loopback) echo 127.0.0.1 ;; esac; }
# Ports 7000 to 7004 lead in; the host's own servers have 8000 to 8004.
base() { if [ "$1" = out ]; then echo 8000; else echo 7000; fi; }
# The ways that a contender has.
ways() { case ${1%-*} in portolan | pasta) echo in out loopback ;; *) echo in out ;; esac; }
shown() { if [ "$1" = loopback ]; then echo "in by loopback"; else echo "$1"; fi; }
ticks() { if [ -n "$engine" ]; then awk '{ sub(/.*\) /, ""); print $12 + $13 }' "/proc/$engine/stat"; else echo 0; fi; }
# cost CONTENDER FIGURE TICKS_BEFORE UNITS SCALE: the time of the processor for each unit.
cost() {
    [ -z "$engine" ] ||
        note "$1" "$2" "$(awk -v t=$(($(ticks) - $3)) -v n="${4:-0}" -v s="$5" 'BEGIN { print (n > 0) ? t / 100 * s / n : "-" }')"
}

throughput() {
    local way streams rate before
    for way in $(ways "$1"); do
        for streams in 1 4; do
            before=$(ticks)
            rate=$(client $way iperf3 -c "$(target $way)" -p $(($(base $way) + 3)) -t "$seconds" -P $streams -J 2>/dev/null |
                python3 -c 'import json, sys; print("%.3f" % (json.load(sys.stdin)["end"]["sum_received"]["bits_per_second"] / 1e9))' 2>/dev/null)
            note "$1" "Gbit/s $(shown $way), $streams streams" "${rate:-0}"
            cost "$1" "CPU s/GB $(shown $way), $streams streams" "$before" \
                "$(awk -v r="${rate:-0}" -v s="$seconds" 'BEGIN { print r * s / 8 }')" 1
        done
    done
}

latency() {
    local way protocol line
    for way in $(ways "$1"); do
        for protocol in tcp udp; do
            line=$(client $way "$load" ping $protocol "$(target $way):$(base $way)" "$seconds" 2>/dev/null)
            note "$1" "us of a $protocol round trip $(shown $way)" "$(value median_us <<<"$line")"
        done
    done
}

connections() {
    local way line before
    for way in $(ways "$1"); do
        before=$(ticks)
        line=$(client $way "$load" connect "$(target $way):$(($(base $way) + 1))" "$seconds" 32 2>/dev/null)
        note "$1" "connections/s $(shown $way)" "$(value per_second <<<"$line")"
        note "$1" "connections $(shown $way), failed" "$(value failed <<<"$line")"
        note "$1" "connections $(shown $way), stuck" "$(value stuck <<<"$line")"
        cost "$1" "CPU us/connection $(shown $way)" "$before" \
            "$(awk -v r="$(value per_second <<<"$line")" -v s="$seconds" 'BEGIN { print r * s }')" 1000000
    done
}

datagrams() {
    local way size line before
    for way in in out; do
        for size in 64 1400; do
            before=$(ticks)
            line=$(client $way "$load" flood "$(target $way):$(($(base $way) + 2))" $size "$seconds" 2>/dev/null)
            note "$1" "datagrams/s of $size bytes $way" "$(value received <<<"$line")"
            note "$1" "datagrams/s of $size bytes $way, offered" "$(value sent <<<"$line")"
            cost "$1" "CPU us/datagram of $size bytes $way" "$before" \
                "$(awk -v r="$(value received <<<"$line")" -v s="$seconds" 'BEGIN { print r * s }')" 1000000
        done
    done
}

memory() {
    local idle with
    [ -n "$engine" ] || return
    idle=$(resident)
    note "$1" "KiB idle" "$idle"
    client in "$load" hold "$to:7004" "$held" 2 >"$work/hold" 2>/dev/null &
    wait_for 50 grep -q held "$work/hold"
    sleep 1
    with=$(resident)
    note "$1" "KiB with $held connections" "$with"
    note "$1" "KiB for each of them" "$(awk -v a="$idle" -v b="$with" -v n="$held" 'BEGIN { print (b - a) / n }')"
    wait $!
    client in iperf3 -c "$to" -p 7003 -t 1 -P 4 >/dev/null 2>&1
    client out iperf3 -c "$from" -p 8003 -t 1 -P 4 >/dev/null 2>&1
    client in "$load" connect "$to:7001" 1 32 >/dev/null 2>&1
    sleep 5
    note "$1" "KiB after load" "$(resident)"
}

# Milliseconds until a program in a space has run, and ended; until one inside has answered a request for a page.
start() {
    local name=${1%-*} mtu=${1##*-}
    local -a command publish=()
    case $name in
    portolan) command=("$portolan" run --mtu "$mtu") publish=(-p 7005:7005) ;;
    pasta) command=("$pasta" -f --config-net --mtu "$mtu") publish=(-t 7005) ;;
    slirp) command=("$work/slirp.sh" "$slirp" "$mtu" "$work/runtime") ;;
    *) return ;;
    esac
    for _ in 1 2 3; do
        note "$1" "ms until a program has run" "$( (as_user "$load" run "${command[@]}" -- true) 2>/dev/null | value run_ms)"
        [ "$name" = slirp ] || note "$1" "ms until the first byte of a page" \
            "$( (as_user "$load" first 10.99.1.1:7005 "${command[@]}" "${publish[@]}" -- "$load" http 0.0.0.0:7005) \
                2>/dev/null | value first_ms)"
    done
}
# What a user of slirp4netns does by hand: a namespace, the device in it, the program, and the end of all.
cat >"$work/slirp.sh" <<'S'
#!/bin/bash
slirp=$1 mtu=$2 directory=$3
shift 4
coproc U { unshare --user --map-root-user --net sh -c 'echo ready; read -r go; exec "$@"' sh "$@"; }
read -r -u "${U[0]}" _
mkfifo "$directory/ready.$$"
"$slirp" --configure --mtu="$mtu" -r 7 "$U_PID" tap0 7>"$directory/ready.$$" >/dev/null 2>&1 &
head -c1 "$directory/ready.$$" >/dev/null
echo go >&"${U[1]}"
wait "$U_PID" 2>/dev/null
kill $!
wait $!
rm -f "$directory/ready.$$"
exit 0
S
chmod 755 "$work/slirp.sh"

for contender in $contenders; do
    case ${contender%-*} in
    veth | portolan | rules) continue ;;
    pasta) program=$pasta ;;
    slirp) program=$slirp ;;
    *) echo "no contender is called ${contender%-*}"; exit 2 ;;
    esac
    command -v "$program" >/dev/null || { echo "left out: $contender ($program is not installed)"; contenders=${contenders//$contender/}; }
done
for _ in $(seq "$rounds"); do
    for contender in $contenders; do
        if [ "$*" = start ]; then
            start "$contender"
            continue
        fi
        up "$contender" || { stop; continue; }
        background $inside "$load" serve 0.0.0.0 7000
        background $on_host "$load" serve 0.0.0.0 8000
        background $inside iperf3 -s -p 7003
        background $on_host iperf3 -s -p 8003
        sleep 0.3
        for what in "$@"; do [ "$what" = start ] || "$what" "$contender"; done
        stop
        for what in "$@"; do [ "$what" != start ] || start "$contender"; done
    done
done

python3 - "$work" $contenders <<'P'
import statistics, sys
work, contenders = sys.argv[1], sys.argv[2:]
figures = {}
for line in open(work + "/figures"):
    contender, figure, value = line.rstrip("\n").split("\t")
    if value.replace(".", "", 1).isdigit():
        figures.setdefault(figure, {}).setdefault(contender, []).append(float(value))
width = max(map(len, figures), default=0)
print(" " * width, *(contender.rjust(15) for contender in contenders))
for figure in sorted(figures):
    cells = (figures[figure].get(contender) for contender in contenders)
    print(figure.ljust(width), *((f"{statistics.median(cell):.5g}" if cell else "-").rjust(15) for cell in cells))
P
