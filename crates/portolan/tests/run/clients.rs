//! Whom the program sees: clients of this host's loopback, of its other addresses, and of other hosts.

use crate::network::script_in_network;

/// A server of all that there is at port 80, and of the program's own loopback at port 81, that says who the client is; and a
/// client from a port of its own. Behind the device `here` is another host, with `in_far` before what it does.
const BOTH: &str = r#"
unshare --net sleep 80 & far=$!
others() { [ "$(readlink /proc/$far/ns/net)" != "$(readlink /proc/self/ns/net)" ]; }
await others
ip link add here type veth peer name there netns $far
in_far() { nsenter --target $far --net "$@"; }
ip addr add 198.51.100.1/24 dev here
ip addr add 2001:db8:51::1/64 dev here nodad
ip link set here up
in_far ip addr add 198.51.100.2/24 dev there
in_far ip addr add 2001:db8:51::2/64 dev there nodad
in_far ip link set there up
cat >server.py <<'END'
import socket, threading
def say(peer): return ("%s %d" % peer[:2]).encode()
def tcp(server):
    while True:
        stream, peer = server.accept()
        threading.Thread(target=lambda: (stream.sendall(say(peer)), stream.recv(1), stream.close())).start()
def udp(server):
    while True:
        data, peer = server.recvfrom(9)
        server.sendto(say(peer), peer)
def serve(family, address, port):
    for kind, run in (socket.SOCK_STREAM, tcp), (socket.SOCK_DGRAM, udp):
        server = socket.socket(family, kind)
        if family == socket.AF_INET6: server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        server.bind((address, port))
        if kind == socket.SOCK_STREAM: server.listen()
        threading.Thread(target=run, args=(server,)).start()
serve(socket.AF_INET, "0.0.0.0", 80)
serve(socket.AF_INET6, "::", 80)
serve(socket.AF_INET, "127.0.0.1", 81)
print(*(line.split()[1] for line in open("/etc/resolv.conf") if line.startswith("nameserver")), file=open("gateway", "w"))
END
cat >client.py <<'END'
import os, socket, sys, time
protocol, address, port, own = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
family = socket.AF_INET6 if ":" in address else socket.AF_INET
client = socket.socket(family, socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM)
client.settimeout(20)
# Of a connection before this one.
if protocol == "tcp": client.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
client.bind(("", own))
try:
    client.connect((address, port))
    client.send(b"") if protocol == "tcp" else client.send(b"?")
    print(client.recv(99).decode() or "closed", flush=True)
except ConnectionError as error:
    print(type(error).__name__)
if len(sys.argv) > 5:
    open(sys.argv[5], "w")
    while not os.path.exists("end"): time.sleep(0.02)
END
"#;

#[test]
fn the_program_sees_each_client_as_it_is_and_loopback_as_the_gateway() {
    let text = r#"
        space -p 8080:80/both -- python3 server.py
        await test -s gateway
        await timeout 3 python3 client.py tcp 127.0.0.1 8080 0
        for protocol in tcp udp; do
            # Another host, and this host's own address: address and port of the client.
            same "$(in_far python3 client.py $protocol 198.51.100.1 8080 5555)" "198.51.100.2 5555"
            same "$(in_far python3 client.py $protocol 2001:db8:51::1 8080 5555)" "2001:db8:51::2 5555"
            same "$(python3 client.py $protocol $V4 8080 5556)" "192.0.2.1 5556"
            same "$(python3 client.py $protocol $V6 8080 5556)" "2001:db8::1 5556"
            # Loopback, of whichever address, is the gateway: the first of its family.
            read -r v4 v6 <gateway
            for address in 127.0.0.1 127.9.9.9; do
                said=$(python3 client.py $protocol $address 8080 0)
                same "${said% *}" "$v4"
            done
            said=$(python3 client.py $protocol ::1 8080 0)
            same "${said% *}" "$v6"
        done
    "#;
    script_in_network(
        "clients::the_program_sees_each_client_as_it_is_and_loopback_as_the_gateway",
        &["python3", "ip", "nsenter"],
        &format!("{BOTH}{text}"),
    );
}

#[test]
fn loopback_is_spliced_unless_packets_are_captured_and_never_to_the_programs_own() {
    let text = r#"
        # How the flows of one connection from this address are listed.
        ways() {
            python3 client.py tcp $1 8080 0 held$1 >said & client=$!
            await test -e held$1
            "$PORTOLAN" list --space web --flows | awk '$1 == "tcp" { print $2 }'
            touch end; wait $client; rm end
        }
        for options in "" "--pcap file.pcapng"; do
            rm -f gateway held*
            space --name web $options -p 8080:80 -p 8081:81/both -- python3 server.py
            space=$!
            await test -s gateway
            await timeout 3 python3 client.py tcp 127.0.0.1 8080 0
            gone() { [ "$("$PORTOLAN" list --space web --flows | wc -l)" = 1 ]; }
            await gone
            same "$(ways 127.0.0.1)" "$([ -n "$options" ] && echo in || echo spliced)"
            await gone
            same "$(ways $V4)" in
            # What is bound to the program's own loopback is nobody else's.
            case $(python3 client.py tcp 127.0.0.1 8081 0) in
                ConnectionResetError | ConnectionRefusedError | closed) ;;
                *) echo "the program's own loopback is reached"; exit 1 ;;
            esac
            kill $space
            wait $space || true
        done
        [ -s file.pcapng ]
    "#;
    script_in_network(
        "clients::loopback_is_spliced_unless_packets_are_captured_and_never_to_the_programs_own",
        &["python3", "ip", "nsenter"],
        &format!("{BOTH}{text}"),
    );
}
