//! What changes on the host while a space runs: resolvers, names, addresses.

use crate::network::script_in_network;

#[test]
fn the_hosts_resolvers_names_and_addresses_are_followed() {
    script_in_network(
        "followed::the_hosts_resolvers_names_and_addresses_are_followed",
        &["ip", "mount", "python3", "getent", "curl"],
        r#"
        # The first resolver answers nobody.
        echo "nameserver 192.0.2.2" >resolv.conf
        echo "192.0.2.9 before.example" >hosts
        mount --bind resolv.conf /etc/resolv.conf
        mount --bind hosts /etc/hosts
        python3 dns.py "$V4" "$V6" &
        python3 -m http.server --bind 0.0.0.0 8000 >/dev/null 2>&1 &
        await curl -sSo /dev/null http://$V4:8000/
        cat >program <<'END'
            await() { n=0; until "$@"; do n=$((n + 1)); [ $n -lt 300 ] || exit 9; sleep 0.1; done; }
            looked_up() { getent ahostsv4 "$1" | grep -q "$2"; }
            touch begun
            await looked_up after.example 192.0.2.10
            await looked_up some.example 192.0.2.77
            touch followed
            await test -e added
            sleep 1
            ! curl -sSo /dev/null --max-time 20 http://198.51.100.7:8000/ || exit 5
END
        space --hosts --no-host -- sh program 2>said
        program=$!
        await test -e begun
        echo "nameserver $V4" >resolv.conf
        # By another file in its place, as editors and resolvers do it.
        echo "192.0.2.10 after.example" >hosts.new
        umount /etc/hosts
        mount --bind hosts.new /etc/hosts
        for n in $(seq 300); do [ ! -e followed ] || break; sleep 0.1; done
        ip addr add 198.51.100.7/32 dev lo
        curl -sSo /dev/null http://198.51.100.7:8000/
        touch added
        wait $program || { echo "code $?"; cat said; exit 1; }
        has "$(cat said)" "198.51.100.7:8000 (an address of this host, with --no-host)"
        "#,
    );
}
