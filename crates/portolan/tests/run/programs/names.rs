//! Names: dig, over UDP and TCP, at the gateway and at a server of the outside.

use crate::network::script_in_network;

#[test]
fn dig_at_the_gateway_and_at_a_server_outside() {
    script_in_network(
        "programs::names::dig_at_the_gateway_and_at_a_server_outside",
        &["dig", "python3"],
        r#"
        printf 'nameserver %s\nnameserver %s\n' "$V4" "$V6" >resolv.conf
        mount --bind resolv.conf /etc/resolv.conf
        python3 dns.py "$V4" "$V6" &
        ask() { dig +tries=2 +time=5 "$@"; }
        await ask "@$V4" a.example
        await ask "@$V6" +tcp a.example
        # The gateway, by both of its addresses; then the server itself, by both of its own.
        cat >asks <<'END'
        for server in $(sed -n 's/^nameserver //p' /etc/resolv.conf) "$@"; do
            for how in +notcp +tcp; do
                dig +tries=2 +time=5 "@$server" $how +short web.example A
                dig +tries=2 +time=5 "@$server" $how +short web.example AAAA
                dig +tries=2 +time=5 "@$server" $how missing.example | grep -o 'status: [A-Z]*'
                # Too long for a datagram: whole by EDNS or, at last, by TCP.
                dig +tries=2 +time=5 "@$server" $how +bufsize=4096 web.example TXT | grep -o 'ANSWER: [0-9]*'
                dig +tries=2 +time=5 "@$server" $how +noedns web.example TXT | grep -o 'ANSWER: [0-9]*'
            done
        done
END
        expected=$(for n in $(seq 8); do printf '192.0.2.77\n2001:db8::77\nstatus: NXDOMAIN\nANSWER: 15\nANSWER: 15\n'; done)
        run -- sh -eu asks "$V4" "$V6" >answers
        same "$(diff answers - <<<"$expected")" ""
        has "$(run -- getent ahosts web.example)" "2001:db8::77"
        # With names alone allowed, no other server is.
        code=0; said=$(run --allow-out web.example:443 -- dig +tries=1 +time=5 "@$V4" +short web.example 2>&1) || code=$?
        has "$said" "denied: 1 UDP flow to $V4:53"
        "#,
    );
}
