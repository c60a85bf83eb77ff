#!/bin/bash
# How fast a stack on a TUN device moves bytes to and from the kernel, beside smoltcp and netstack-smoltcp:
# bench/tun.sh [ROUNDS [SECONDS]]
#
# Builds and runs the example `tunspeed` of portolan-net and bench/netstack_smoltcp.rs, the latter as a crate of its own in
# target/peers or $PEERS with what it needs from crates.io, each time in a network namespace of its own; the contenders take
# turns. Printed are medians of the rounds: bytes a second, CPU time of the stack's thread and of both ends together (the
# kernel's socket and its program included) for each GB, and the ratios of the rates to smoltcp's. Needs root.
set -eu
cd "$(dirname "$0")/.."
rounds=${1:-5} seconds=${2:-3}
cargo build --release -q -p portolan-net --example tunspeed
peer=${PEERS:-target/peers}/netstack-smoltcp
mkdir -p "$peer/src"
cp bench/netstack_smoltcp.rs "$peer/src/main.rs"
cat >"$peer/Cargo.toml" <<'END'
[package]
name = "netstack-smoltcp-speed"
version = "0.0.0"
edition = "2024"
publish = false
[dependencies]
futures = "0.3"
libc = "0.2"
netstack-smoltcp = "=0.2.4"
rustix = { version = "1", features = ["fs", "time"] }
tokio = { version = "1", features = ["net", "rt", "time", "io-util"] }
[workspace]
END
(cd "$peer" && cargo build --release -q --target-dir target)
out=$(mktemp -d)
trap 'rm -r "$out"' EXIT
contenders="smoltcp netstack-smoltcp portolan-plain portolan"
for direction in send receive; do
    for _ in $(seq "$rounds"); do
        for stack in $contenders; do
            case $stack in
            netstack-smoltcp) set -- "$peer/target/release/netstack-smoltcp-speed" ;;
            *) set -- target/release/examples/tunspeed "$stack" ;;
            esac
            unshare --net "$@" "$direction" "$seconds" >>"$out/$direction-$stack"
        done
    done
done

# median FILE COLUMN
median() { awk -v column="$2" '{ print $column }' "$1" | sort -g | sed -n "$(((rounds + 1) / 2))p"; }

printf '%-10s%-18s%8s%14s%12s%8s\n' direction stack MB/s 'stack s/GB' 'both s/GB' ratio
for direction in send receive; do
    base=$(median "$out/$direction-smoltcp" 1)
    for stack in $contenders; do
        file=$out/$direction-$stack
        rate=$(median "$file" 1)
        ratio=$(awk -v ours="$rate" -v base="$base" 'BEGIN { printf "%.2f", ours / base }')
        printf '%-10s%-18s%8s%14s%12s%8s\n' "$direction" "$stack" "$rate" "$(median "$file" 3)" "$(median "$file" 5)" "$ratio"
    done
done
