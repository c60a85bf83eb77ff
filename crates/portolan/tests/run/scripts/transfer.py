"""transfer.py serve PORT MIB: to every connection, so many MiB; its hash after the end on standard error is the client's.
transfer.py fetch HOST PORT PAUSE: reads to the end, pausing for so many seconds now and then; says length and hash.
transfer.py push HOST PORT MIB / transfer.py take PORT PAUSE: the other way."""
import hashlib, random, socket, sys, time


def blocks(mib):
    block = random.Random(mib).randbytes(1 << 20)
    for number in range(mib):
        # Each is another, so that none can be taken for the next.
        yield number.to_bytes(8, "big") + block[8:]


def told(mib):
    digest = hashlib.sha256()
    for block in blocks(mib):
        digest.update(block)
    return f"{mib << 20} {digest.hexdigest()}"


def send(stream, mib):
    with stream:
        for block in blocks(mib):
            stream.sendall(block)
        stream.shutdown(socket.SHUT_WR)
        # The end of the other side says that all has come.
        assert stream.recv(1) == b""


def receive(stream, pause):
    digest, length, next_pause = hashlib.sha256(), 0, 1 << 20
    stream.settimeout(60)
    with stream:
        while data := stream.recv(1 << 18):
            digest.update(data)
            length += len(data)
            if length >= next_pause:
                next_pause += 1 << 23
                time.sleep(pause)
    print(length, digest.hexdigest(), flush=True)


def server(port):
    return socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True)


what, arguments = sys.argv[1], sys.argv[2:]
if what == "told":
    print(told(int(arguments[0])))
elif what == "serve":
    listener = server(int(arguments[0]))
    while True:
        send(listener.accept()[0], int(arguments[1]))
elif what == "take":
    receive(server(int(arguments[0])).accept()[0], float(arguments[1]))
elif what == "fetch":
    receive(socket.create_connection((arguments[0], int(arguments[1])), 60), float(arguments[2]))
elif what == "push":
    send(socket.create_connection((arguments[0], int(arguments[1])), 60), int(arguments[2]))
