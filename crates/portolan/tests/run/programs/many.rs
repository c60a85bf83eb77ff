//! Many at once.

use crate::network::script_in_network;

/// As many as the limit of descriptors allows the narrowest: portolan itself, which has one for each connection, and keeps a
/// quarter for all else where the limit is low.
const COUNT: &str = r#"
    most=$(($(ulimit -Hn) * 3 / 4 - 200))
    count() { echo $(($1 < most ? $1 : most)); }
    [ $most -ge 10000 ] || echo "skipped: some of 10,000 flows (ulimit -Hn is $(ulimit -Hn))"
"#;

#[test]
fn a_thousand_connections_at_once_both_ways() {
    let text = r#"
        python3 many.py serve 4000 &
        space -p 4001:4001/both -- python3 many.py serve 4001
        await listens 4000
        await timeout 3 python3 many.py datagrams "$V4" 4001 1
        for address in "$V4" "$V6"; do
            same "$(run -- python3 many.py connect "$address" 4000 $(count 1000))" $(count 1000)
            same "$(python3 many.py connect "$address" 4001 $(count 1000))" $(count 1000)
        done
        same "$(python3 many.py connect 127.0.0.1 4001 $(count 1000))" $(count 1000)
    "#;
    script_in_network(
        "programs::many::a_thousand_connections_at_once_both_ways",
        &["python3", "ss"],
        &format!("{COUNT}{text}"),
    );
}

#[test]
fn ten_thousand_mapped_flows() {
    let text = r#"
        space -p 4001:4001/both -- python3 many.py serve 4001
        await timeout 3 python3 many.py datagrams "$V4" 4001 1
        same "$(python3 many.py connect "$V4" 4001 $(count 10000))" $(count 10000)
        # A datagram's session lasts longer than its socket: these are there at once as well.
        same "$(python3 many.py datagrams "$V6" 4001 $(count 2000))" $(count 2000)
        same "$(python3 many.py connect "$V6" 4001 100)" 100
    "#;
    script_in_network(
        "programs::many::ten_thousand_mapped_flows",
        &["python3"],
        &format!("{COUNT}{text}"),
    );
}
