//! iperf3, both ways and in both roles.

use crate::network::script_in_network;

#[test]
fn iperf3_over_tcp_and_udp_both_ways() {
    script_in_network(
        "programs::throughput::iperf3_over_tcp_and_udp_both_ways",
        &["iperf3"],
        r#"
        measure() {
            local text try
            # A machine that has much to do loses datagrams of any program that waits for its turn, but not each time.
            for try in 1 2 3 4 5; do
                text=$(timeout 30 "$@" --connect-timeout 5000 2>&1) || { echo "$* says $text"; exit 6; }
                # The line of the receiver ends with what was lost, in percent.
                has "$text" receiver
                case $* in
                    *-u*) echo "$text" | grep receiver | grep -qE '\((0|0\.[0-9]+|[1-4](\.[0-9]+)?)%\)' || continue;;
                esac
                return
            done
            echo "lost: $text"
            exit 5
        }
        iperf3 -s >/dev/null &
        space -p 5202:5202/both -- iperf3 -s -p 5202 >/dev/null
        await listens 5201
        # The control connection tells when the server inside listens.
        await timeout 5 iperf3 -c "$V4" -p 5202 -n 1K
        for address in "$V4" "$V6"; do
            for how in "-n 4M" "-n 4M -R" "-n 4M -P 4" "-n 4M --bidir" "-u -b 20M -l 1200 -n 1M" "-u -b 20M -l 1200 -n 1M -R"; do
                measure "$PORTOLAN" run -- iperf3 -c "$address" $how
                measure iperf3 -c "$address" -p 5202 $how
            done
        done
        "#,
    );
}
