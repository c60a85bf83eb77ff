"""many.py serve PORT: echoes, with room for everybody.
many.py connect HOST PORT COUNT: that many connections, all at once; says how many of them echoed their own words.
many.py datagrams HOST PORT COUNT: the same with sockets of UDP, each of which is a flow."""
import resource, selectors, socket, sys, time

limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
selector = selectors.DefaultSelector()


def serve(port):
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        server = socket.socket(socket.AF_INET6, kind)
        server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        server.bind(("::", port))
        if kind == socket.SOCK_STREAM:
            server.listen(4096)
        server.setblocking(False)
        selector.register(server, selectors.EVENT_READ, kind)
    while True:
        for key, _ in selector.select():
            try:
                if key.data == socket.SOCK_STREAM:
                    while True:
                        stream = key.fileobj.accept()[0]
                        stream.setblocking(False)
                        selector.register(stream, selectors.EVENT_READ)
                elif key.data == socket.SOCK_DGRAM:
                    while True:
                        key.fileobj.sendto(*key.fileobj.recvfrom(4096))
                elif data := key.fileobj.recv(4096):
                    key.fileobj.send(data)
                else:
                    selector.unregister(key.fileobj)
                    key.fileobj.close()
            except BlockingIOError:
                pass


def word(number):
    return b"this is number %06d" % number


def connect(host, port, count, kind):
    family, _, _, _, address = socket.getaddrinfo(host, port, type=kind)[0]
    until = time.monotonic() + 60
    sockets = []
    for number in range(count):
        one = socket.socket(family, kind)
        one.setblocking(False)
        one.connect_ex(address)
        selector.register(one, selectors.EVENT_WRITE, number)
        sockets.append(one)
        # A queue of connections has its length: whoever comes in too great a crowd is asked to come again later.
        if kind == socket.SOCK_STREAM and number % 500 == 499:
            settle(number + 1, until)
        elif kind == socket.SOCK_DGRAM:
            selector.modify(one, selectors.EVENT_READ, number)
            one.send(word(number))
            if number % 100 == 99:
                echoed(until, number - 99, sockets)
    if kind == socket.SOCK_STREAM:
        settle(count, until)
        for number, one in enumerate(sockets):
            selector.modify(one, selectors.EVENT_READ, number)
            one.send(word(number))
    return echoed(until, 0, sockets)


connected = set()


def settle(count, until):
    while len(connected) < count and time.monotonic() < until:
        for key, _ in selector.select(1):
            if key.data not in connected:
                error = key.fileobj.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                if error:
                    sys.exit(f"connection {key.data}: error {error}")
                connected.add(key.data)
                selector.modify(key.fileobj, 0 or selectors.EVENT_READ, key.data)


heard = set()


def echoed(until, first, sockets):
    while len(heard) < len(sockets) and time.monotonic() < until:
        ready = selector.select(1)
        for key, _ in ready:
            data = key.fileobj.recv(4096)
            if data != word(key.data):
                sys.exit(f"socket {key.data} heard {data!r}")
            heard.add(key.data)
        if not ready and sockets[0].type == socket.SOCK_DGRAM:
            # Datagrams may be lost.
            for number in set(range(first, len(sockets))) - heard:
                sockets[number].send(word(number))
    return len(heard)


if sys.argv[1] == "serve":
    serve(int(sys.argv[2]))
else:
    kind = socket.SOCK_STREAM if sys.argv[1] == "connect" else socket.SOCK_DGRAM
    print(connect(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), kind))
