//! As many published ports as there are.

use crate::network::script_in_network;

/// Each port of each protocol, in one process: as many as this machine lets a process have. How long it takes is printed,
/// and not judged: other tests run at the same time.
#[test]
fn every_port_of_both_protocols_is_published_by_one_process() {
    script_in_network(
        "all_ports::every_port_of_both_protocols_is_published_by_one_process",
        &["python3", "ss"],
        r#"
        # Root may raise it, mostly.
        ulimit -n 140000 2>/dev/null || ulimit -n "$(ulimit -Hn)"
        limit=$(ulimit -n)
        [ "$limit" != unlimited ] || limit=140000
        last=$(((limit - 200) / 2))
        [ $last -lt 65535 ] || last=65535
        [ $last = 65535 ] || echo "skipped: all ports above $last: a process has at most $limit descriptors here"
        cat >server.py <<'END'
import os, socket, sys, threading, time
def tcp(server):
    while True:
        stream, peer = server.accept()
        stream.sendall(b"tcp %d" % server.getsockname()[1]); stream.close()
def udp(server):
    while True:
        data, peer = server.recvfrom(9)
        server.sendto(b"udp %d" % server.getsockname()[1], peer)
for port in map(int, sys.argv[1:]):
    threading.Thread(target=tcp, args=(socket.create_server(("", port)),), daemon=True).start()
    server = socket.socket(type=socket.SOCK_DGRAM)
    server.bind(("", port))
    threading.Thread(target=udp, args=(server,), daemon=True).start()
open("ready", "w")
while not os.path.exists("end"): time.sleep(0.02)
END
        cat >client.py <<'END'
import socket, sys
for port in sys.argv[2:]:
    place = sys.argv[1], int(port)
    print(socket.create_connection(place, 20).makefile().read())
    client = socket.socket(type=socket.SOCK_DGRAM)
    client.settimeout(20)
    client.connect(place)
    client.send(b"?")
    print(client.recv(99).decode())
END
        milliseconds() { echo $(($(date +%s%N) / 1000000)); }
        t0=$(milliseconds)
        run -- true
        t1=$(milliseconds)
        run -p $V4:1-$last:1-$last/both -- true
        t2=$(milliseconds)
        echo "note: $((2 * last)) ports in $((t2 - t1 - t1 + t0)) ms, taken and given back, beside none"
        # Given back.
        same "$(ss -Hltun | wc -l)" 0

        space -p $V4:1-$last:1-$last/both -- python3 server.py 1 80 $last
        until [ -e ready ]; do kill -0 $! || exit 1; sleep 0.05; done
        same "$(ss -Hltn src $V4 | wc -l)" $last
        same "$(ss -Hlun src $V4 | wc -l)" $last
        # All of one process.
        held=$(ls -U /proc/$!/fd | wc -l)
        [ $held -ge $((2 * last)) ] || { echo "only $held descriptors"; exit 1; }
        same "$(python3 client.py $V4 1 80 $last | tr '\n' ,)" "tcp 1,udp 1,tcp 80,udp 80,tcp $last,udp $last,"
        touch end
        wait $!
        same "$(ss -Hltun | wc -l)" 0
        "#,
    );
}

/// What is said to fit does, and one more does not.
#[test]
fn how_many_ports_would_fit_is_the_truth() {
    script_in_network(
        "all_ports::how_many_ports_would_fit_is_the_truth",
        &["ss"],
        r#"
        ulimit -n 1000
        code=0
        run -p $V4:1-65535:1-65535/both -- touch started 2>said || code=$?
        same $code 125
        has "$(cat said)" "portolan: cannot publish 131070 ports: they need "
        has "$(cat said)" " descriptors, and this process may have 1000 (RLIMIT_NOFILE, ulimit -Hn), enough for "
        has "$(cat said)" "; publish fewer ports, or raise the limit [descriptors]"
        fitting=$(sed -E 's/.*enough for ([0-9]+);.*/\1/' said)
        [ $fitting -gt 800 ]
        code=0
        run -p $V4:1-$((fitting + 1)):1-$((fitting + 1)) -- touch started 2>said || code=$?
        same $code 125
        has "$(cat said)" "enough for $fitting; "
        [ ! -e started ]
        same "$(ss -Hltun | wc -l)" 0
        # The program has the limit that it was started with, whatever the ports took.
        ulimit -Sn 500
        same "$(run -p $V4:1-$fitting:1-$fitting -- sh -c 'ulimit -n; ulimit -Hn' | tr '\n' ,)" 500,1000,
        "#,
    );
}
