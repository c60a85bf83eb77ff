//! QUIC, where Python has it; and datagrams like its own in any case.

use crate::network::script_in_network;

#[test]
fn quic_and_datagrams_like_it() {
    script_in_network(
        "programs::datagrams::quic_and_datagrams_like_it",
        &["python3", "ss"],
        r#"
        python3 many.py serve 4000 &
        space -p 4001:4001/both -- python3 many.py serve 4001
        await listens 4000
        await timeout 3 python3 many.py datagrams "$V4" 4001 1
        for address in "$V4" "$V6"; do
            same "$(run -- python3 quic.py blast "$address" 4000 1000)" 1000
            same "$(python3 quic.py blast "$address" 4001 1000)" 1000
        done
        # Debian has it for its own Python.
        if ! /usr/bin/python3 -c 'import aioquic' 2>/dev/null; then
            echo "skipped: no QUIC here (Debian's python3-aioquic is not installed)"
            exit 0
        fi
        quic="/usr/bin/python3 quic.py"
        openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout key -out certificate -subj /CN=a \
            2>/dev/null
        $quic serve 4433 certificate key &
        space -p 4434:443/udp -- $quic serve 443 certificate key
        await $quic ask "$V4" 4433 1
        await timeout 10 $quic ask "$V4" 4434 1
        for address in "$V4" "$V6"; do
            same "$(run -- $quic ask "$address" 4433 300000)" "300000 True"
            same "$($quic ask "$address" 4434 300000)" "300000 True"
        done
        "#,
    );
}
