//! A program that means harm and has every right in the namespace of its space, over each kind of device. What it may do there is
//! more than CMD ever gets: it enters from outside, as the user whose space it is.

use crate::network::script_in_network;

/// Hostile frames in a run.
const FRAMES: &str = "20000";

/// A space with a neighbour in it whose echoes must go on, an attack from inside, and listeners where nobody may come.
const SIEGE: &str = r#"
    python3 many.py serve 4000 &
    python3 hostile.py trap 7000 &
    await listens 4000
    await listens 7000
    space --name siege --deny-out '*:7000/both' -- python3 hostile.py neighbour "$V4" "$V6" 4000 2>log
    run=$!
    await test -s echoes
    pid=$("$PORTOLAN" spaces --json | python3 -c 'import json, sys; print(json.load(sys.stdin)["spaces"][0]["pid"])')
    inside="nsenter --target $pid --user --net --preserve-credentials"
    $inside ip -4 route >routes
    $inside ip -6 route >>routes
    gateways=$(python3 -c 'import re; print(*dict.fromkeys(re.findall(r"default via (\S+)", open("routes").read())))')
    case $($inside ip link show port0) in
        *link/ether*) same "$device" veth;;
        *) same "$device" tun;;
    esac
    for seed in 1 2; do
        before=$(cat echoes)
        said=$($inside python3 hostile.py attack $seed $((frames / 2)) "$V4" "$V6" 4000 $gateways)
        await python3 -c "import sys; sys.exit(int(open('echoes').read()) < $before + 20)"
        [ "${said%% *}" -gt 1000 ] || { echo "the kernel lets nothing pass: $said"; exit 6; }
        echo "note: $device: $said, $(($(cat echoes) - before)) echoes meanwhile"
    done
    # Somebody new comes out and in as before.
    same "$($inside python3 many.py connect "$V4" 4000 20)" 20
    same "$($inside python3 many.py connect "$V6" 4000 20)" 20
    rss=$(sed -n 's/^VmRSS:[^0-9]*\([0-9]*\).*/\1/p' /proc/$run/status)
    [ "$rss" -lt 400000 ] || { echo "$rss KiB resident"; exit 5; }
    echo "note: $device: $rss KiB resident"
    touch stop
    wait $run
    [ ! -e trapped ] || { echo "came through:"; cat trapped; exit 4; }
    ! grep -i panicked log
"#;

const HAS_TUN: &str = r#"
    { : <>/dev/net/tun; } 2>/dev/null || { echo "skipped: this user may not open /dev/net/tun"; exit 0; }
"#;

/// In the mount namespace of the test.
const HIDES_TUN: &str = "[ ! -d /dev/net ] || mount -t tmpfs none /dev/net\n";

const PROGRAMS: [&str; 5] = ["python3", "ss", "ip", "nsenter", "timeout"];

#[test]
fn hostile_frames_over_tun() {
    script_in_network(
        "hostile::hostile_frames_over_tun",
        &PROGRAMS,
        &format!("device=tun frames={FRAMES}\n{HAS_TUN}{SIEGE}"),
    );
}

#[test]
fn hostile_frames_over_veth() {
    script_in_network(
        "hostile::hostile_frames_over_veth",
        &PROGRAMS,
        &format!("device=veth frames={FRAMES}\n{HIDES_TUN}{SIEGE}"),
    );
}
