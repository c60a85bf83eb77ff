//! What a space keeps when nobody needs it any more.

use crate::network::script_in_network;

/// Thousands of connections, sessions and bytes both ways; then the gateway is as small again as half more than it was.
#[test]
fn memory_comes_back_after_load() {
    let text = r#"
        most=$(($(ulimit -Hn) / 2 - 200))
        count=$((most < 2000 ? most : 2000))
        serve='
import socket, sys
server = socket.create_server(("", int(sys.argv[1])), backlog=64)
while True:
    stream = server.accept()[0]
    for _ in range(512):
        stream.sendall(bytes(65536))
    stream.close()'
        fetch='
import socket, sys
streams = [socket.create_connection((sys.argv[1], int(sys.argv[2])), 60) for _ in range(4)]
print(sum(sum(iter(lambda: len(stream.recv(1 << 20)), 0)) for stream in streams))'
        python3 many.py serve 4000 &
        python3 -c "$serve" 4002 &
        space --name loaded -p 4001:4001/both -p 4003:4003 -- python3 many.py serve 4001
        gateway=$!
        await timeout 3 python3 many.py datagrams "$V4" 4001 1
        inside() { run --join loaded -- "$@"; }
        inside python3 -c "$serve" 4003 &
        await inside python3 -c "$fetch" 127.0.0.1 4003
        await listens 4002
        # Of all and of what is no file: debugging information makes the first much.
        resident() { awk '/^VmRSS/ { all = $2 } /^RssAnon/ { own = $2 } END { print all, own }' "/proc/$gateway/status"; }
        read -r all own <<<"$(resident)"

        for address in "$V4" "$V6"; do
            same "$(python3 many.py connect "$address" 4001 $count)" $count
            same "$(inside python3 many.py connect "$address" 4000 $count)" $count
        done
        same "$(python3 many.py datagrams "$V4" 4001 200)" 200
        same "$(python3 -c "$fetch" "$V4" 4003)" $((4 << 25))
        same "$(inside python3 -c "$fetch" "$V4" 4002)" $((4 << 25))
        read -r all_loaded own_loaded <<<"$(resident)"
        [ "$own_loaded" -gt $((own + 8192)) ] || { echo "that was no load: $own, then $own_loaded"; exit 6; }

        is_back() {
            read -r all_now own_now <<<"$(resident)"
            [ $((all_now * 2)) -le $((all * 3)) ] && [ "$own_now" -le $((own + 6144)) ]
        }
        n=0
        until is_back; do
            n=$((n + 1))
            [ $n -lt 300 ] || { echo "idle $all ($own) KiB, loaded $all_loaded ($own_loaded), now $all_now ($own_now)"; exit 5; }
            sleep 0.1
        done
        echo "note: idle $all ($own) KiB, loaded $all_loaded ($own_loaded), then $all_now ($own_now) after $n looks"
    "#;
    script_in_network("memory::memory_comes_back_after_load", &["python3", "ss"], text);
}
