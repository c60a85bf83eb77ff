"""The client of the differential test: says what it observes, a line for each thing, and asks the far end what that saw.

near.py FAR4 FAR6 NARROW4 NARROW6 VANISHING4 VANISHING6
"""
import errno
import select
import socket
import struct
import sys
import threading
import time

import far
from far import PATIENCE, name_of, pattern, port, reset, rest

V4, V6 = 4, 6
FAMILIES = {V4: socket.AF_INET, V6: socket.AF_INET6}
# As far as the space is concerned these are where the routers say no.
NO_ROUTE = {V4: "203.0.114.1", V6: "2001:db8:f::1"}
UNREACHABLE = {V4: "203.0.113.65", V6: "2001:db8:2::65"}
PROHIBITED = {V4: "203.0.113.66", V6: "2001:db8:2::66"}
BLACK_HOLE = {V4: "203.0.113.67", V6: "2001:db8:2::67"}
FAR = NARROW = VANISHING = None
SCRIPTS = []
ALL_CONNECTED = threading.Barrier(len(FAMILIES))
IP_RECVERR, IPV6_RECVERR, IP_MTU_DISCOVER, IPV6_MTU_DISCOVER, DO = 11, 25, 10, 23, 2
IP_MTU, IPV6_MTU, IP_RECVTTL, IPV6_RECVERR_LEVEL = 14, 24, 12, 41
ICMP, ICMP6 = 1, 58


def script(function):
    SCRIPTS.append(function)
    return function


def tcp(version, to=None, name=None, number=None, timeout=PATIENCE):
    stream = socket.socket(FAMILIES[version], socket.SOCK_STREAM)
    stream.settimeout(timeout)
    stream.connect(((to or FAR)[version], number or port(name)))
    return stream


def ask(version, word):
    with tcp(version, number=far.ASK_PORT) as stream:
        stream.sendall(word.encode() + b"\n")
        return rest_text(stream)


def seen(version, name):
    return ask(version, f"seen IPv{version} {name}")


def rest_text(stream):
    text = b""
    while data := stream.recv(4096):
        text += data
    return text.decode()


def attempt(action):
    """What comes of it: a value, or the name of the error."""
    try:
        value = action()
        return value if isinstance(value, str) else f"{value!r}"
    except socket.timeout as error:
        return "ETIMEDOUT" if error.errno else "silence"
    except OSError as error:
        return name_of(error)


# Paths that take less than the device; first, while nobody knows.

@script
def datagrams_that_do_not_fit(version):
    there = udp(version, NARROW, timeout=1)
    there.setsockopt(level(version), IP_MTU_DISCOVER if version == V4 else IPV6_MTU_DISCOVER, DO)
    tell_errors(there, version)
    data = pattern(1400)
    yield "first", attempt(lambda: there.send(data))
    yield "queue", next_error(there, version)
    yield "second", attempt(lambda: there.send(data))
    yield "path", attempt(lambda: there.getsockopt(level(version), IP_MTU if version == V4 else IPV6_MTU))
    yield "one that fits", attempt(lambda: there.settimeout(PATIENCE) or there.send(data[:1200]) and len(there.recv(2000)))


@script
def datagrams_that_are_cut(version):
    """After the path is known they go in fragments."""
    there = udp(version, NARROW, timeout=2)
    there.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
    data = pattern(1400)
    there.send(data)
    attempt(lambda: there.recv(2000))
    yield "second", attempt(lambda: there.send(data) and len(there.recv(2000)))
    yield "20,000 bytes", attempt(lambda: there.send(pattern(20000)) and len(there.recv(1 << 16)))


# TCP: connections that do not come about.

@script
def connect_errors(version):
    def outcome(address, number):
        return attempt(lambda: tcp(version, address, number=number) and "connected")
    start = time.time()
    yield "closed port", outcome(FAR, far.CLOSED_PORT)
    yield "closed port of a narrow path", outcome(NARROW, far.CLOSED_PORT)
    yield "at once", f"{time.time() - start < 5}"
    yield "no route", outcome(NO_ROUTE, 80)
    yield "host unreachable", outcome(UNREACHABLE, 80)
    yield "prohibited", outcome(PROHIBITED, 80)


@script
def connect_silence(version):
    yield "one and a half seconds", attempt(lambda: tcp(version, BLACK_HOLE, number=80, timeout=1.5) and "connected")

    def given_up():
        stream = socket.socket(FAMILIES[version], socket.SOCK_STREAM)
        stream.settimeout(PATIENCE)
        stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_SYNCNT, 1)
        stream.connect((BLACK_HOLE[version], 80))
        return "connected"
    yield "a SYN and another", attempt(given_up)


@script
def connect_without_waiting(version):
    stream = socket.socket(FAMILIES[version], socket.SOCK_STREAM)
    stream.setblocking(False)
    yield "connect", errno.errorcode[stream.connect_ex((FAR[version], far.CLOSED_PORT))]
    poll = select.poll()
    poll.register(stream, select.POLLIN | select.POLLOUT)
    events = poll.poll(PATIENCE * 1000)
    yield "poll", hex(events[0][1]) if events else "nothing"
    yield "SO_ERROR", errno.errorcode[stream.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)]


@script
def names_of_the_ends(version):
    stream = tcp(version, name="nothing_said")
    yield "peer", stream.getpeername()[0]
    stream.close()
    yield "far", seen(version, "nothing_said")


# TCP: how connections end.

@script
def half_close_by_client(version):
    stream = tcp(version, name="half_close_by_client")
    stream.sendall(b"question")
    stream.shutdown(socket.SHUT_WR)
    yield "near", rest(stream)
    yield "far", seen(version, "half_close_by_client")


@script
def half_close_by_server(version):
    stream = tcp(version, name="half_close_by_server")
    yield "near", rest(stream)
    stream.sendall(b"said to who only listens")
    stream.close()
    yield "far", seen(version, "half_close_by_server")


@script
def client_resets(version):
    stream = tcp(version, name="client_resets")
    stream.recv(2)
    stream.sendall(b"half of a")
    time.sleep(0.2)
    reset(stream)
    yield "far", seen(version, "client_resets")


@script
def server_resets(version):
    stream = tcp(version, name="server_resets")
    stream.sendall(b"go")
    yield "read", rest(stream)
    yield "read again", attempt(lambda: stream.recv(1))
    yield "write", attempt(lambda: stream.send(b"x"))
    yield "shutdown", attempt(lambda: stream.shutdown(socket.SHUT_RDWR))
    yield "far", seen(version, "server_resets")


@script
def client_resets_before_it_is_read(version):
    stream = tcp(version, name="client_resets_before_it_is_read")
    stream.recv(2)
    stream.sendall(pattern(20000))
    time.sleep(0.3)
    reset(stream)
    yield "far", seen(version, "client_resets_before_it_is_read")


@script
def server_resets_before_it_is_read(version):
    stream = tcp(version, name="server_resets_before_it_is_read")
    stream.sendall(b"go")
    yield "far", seen(version, "server_resets_before_it_is_read")
    time.sleep(0.3)
    yield "read", rest(stream)


@script
def server_closes_unread(version):
    stream = tcp(version, name="server_closes_unread")
    stream.sendall(b"never read")
    yield "near", rest(stream)
    yield "far", seen(version, "server_closes_unread")


@script
def client_closes_unread(version):
    stream = tcp(version, name="client_closes_unread")
    stream.recv(1)
    stream.close()
    yield "far", seen(version, "client_closes_unread")


@script
def write_after_close(version):
    stream = tcp(version, name="write_after_close")
    yield "read", rest(stream)
    yield "far", seen(version, "write_after_close")
    yield "first write", attempt(lambda: stream.send(b"x"))
    poll = select.poll()
    poll.register(stream, 0)
    poll.poll(PATIENCE * 1000)
    yield "second write", attempt(lambda: stream.send(b"x"))


@script
def shutdown_read(version):
    stream = tcp(version, name="shutdown_read")
    stream.shutdown(socket.SHUT_RD)
    yield "at once", attempt(lambda: stream.recv(100))
    stream.sendall(b"go")
    time.sleep(0.3)
    yield "later", attempt(lambda: stream.recv(100))
    stream.close()
    yield "far", seen(version, "shutdown_read")


@script
def shutdown_both(version):
    stream = tcp(version, name="shutdown_both")
    stream.sendall(b"all there is")
    stream.shutdown(socket.SHUT_RDWR)
    yield "near", rest(stream)
    yield "write", attempt(lambda: stream.send(b"x"))
    yield "far", seen(version, "shutdown_both")


@script
def crossing(version):
    stream = tcp(version, name="crossing")
    stream.sendall(b"to me")
    stream.shutdown(socket.SHUT_WR)
    yield "near", rest(stream)
    yield "far", seen(version, "crossing")


@script
def large_then_close(version):
    for to in (FAR, NARROW):
        stream = tcp(version, to, name="large_then_close")
        stream.sendall(pattern(4 << 20))
        stream.close()
        yield "far", seen(version, "large_then_close")


@script
def large_then_linger(version):
    stream = tcp(version, name="large_then_close")
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, PATIENCE))
    stream.sendall(pattern(1 << 20))
    stream.close()
    yield "far", seen(version, "large_then_close")


@script
def large_from_server(version):
    for to in (FAR, NARROW):
        yield "near", rest(tcp(version, to, name="large_from_server"))
        yield "far", seen(version, "large_from_server")


@script
def slow_reader(version):
    stream = tcp(version, name="slow_reader")
    stream.setblocking(False)
    stream.send(b"!")
    sent, data, stalled = 0, pattern(1 << 16), False
    until = time.time() + PATIENCE
    while not stalled and sent < 96 << 20 and time.time() < until:
        if select.select([], [stream], [], 0.4)[1]:
            sent += stream.send(data[:(1 << 16) - sent % 251])
        else:
            stalled = True
    yield "stalled", f"{stalled}"
    stream.setblocking(True)
    stream.shutdown(socket.SHUT_WR)
    text = seen(version, "slow_reader")
    yield "all came", f"{text.startswith(f'{sent} bytes') and text.endswith('the end')}"
    stream.close()


# TCP: urgent data and questions whether the peer lives.

@script
def urgent_to_client(version):
    stream = tcp(version, name="urgent_to_client")
    poll = select.poll()
    poll.register(stream, select.POLLPRI)
    yield "POLLPRI", f"{bool(poll.poll(2000))}"
    yield "before the mark", attempt(lambda: stream.recv(100))
    yield "out of band", attempt(lambda: far.out_of_band(stream))
    stream.sendall(b"+")
    yield "after it", attempt(lambda: stream.recv(100))
    stream.close()
    yield "far", seen(version, "urgent_to_client")


@script
def urgent_to_client_in_line(version):
    stream = tcp(version, name="urgent_to_client")
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, 1)
    got = b""
    while len(got) < 7:
        got += stream.recv(7 - len(got))
    stream.sendall(b"+")
    yield "all", attempt(lambda: got + stream.recv(100))
    stream.close()
    yield "far", seen(version, "urgent_to_client")


@script
def urgent_to_server(version):
    stream = tcp(version, name="urgent_to_server")
    stream.recv(2)
    stream.sendall(b"before")
    stream.send(b"!", socket.MSG_OOB)
    stream.recv(1)
    stream.sendall(b"after")
    stream.close()
    yield "far", seen(version, "urgent_to_server")


def impatient(version, to, name):
    stream = tcp(version, to, name=name)
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 1)
    stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 1)
    stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 2)
    return stream


@script
def keepalive_answered(version):
    stream = impatient(version, FAR, "keepalive_answered")
    stream.settimeout(4.5)
    yield "near", attempt(lambda: stream.recv(1))
    stream.close()
    yield "far", seen(version, "keepalive_answered")


@script
def keepalive_vanished(version):
    """The last of its kind: the peer falls silent for the other version as well."""
    stream = impatient(version, VANISHING, "keepalive_vanished")
    ALL_CONNECTED.wait(PATIENCE)
    if version == V4:
        ask(version, "vanishing add")
    stream.settimeout(9)
    yield "near", attempt(lambda: stream.recv(1))
    ALL_CONNECTED.wait(PATIENCE)
    if version == V4:
        ask(version, "vanishing del")


# Datagrams.

def udp(version, to=None, number=None, timeout=PATIENCE):
    there = socket.socket(FAMILIES[version], socket.SOCK_DGRAM)
    there.settimeout(timeout)
    if to:
        there.connect((to[version], number or far.ECHO_PORT))
    return there


def level(version):
    return socket.IPPROTO_IP if version == V4 else socket.IPPROTO_IPV6


def tell_errors(there, version):
    there.setsockopt(level(version), IP_RECVERR if version == V4 else IPV6_RECVERR, 1)


def insisting(action, is_silence, patience):
    """Routers send few errors a second: what was answered by silence is done again."""
    end = time.time() + patience
    while is_silence(result := action()) and time.time() < end:
        pass
    return result


def next_error(there, version, skipped=0, patience=3):
    """What the queue of errors says: errno, origin, type, code, info, and who said it."""
    until = time.time() + patience
    there.settimeout(0)
    while time.time() < until:
        try:
            data, controls, _, to = there.recvmsg(100, 512, socket.MSG_ERRQUEUE)
        except BlockingIOError:
            time.sleep(0.01)
            continue
        except OSError as error:
            return name_of(error)
        for _, kind, value in controls:
            if kind in (IP_RECVERR, IPV6_RECVERR):
                number, origin, icmp, code, _, info, _ = struct.unpack("IBBBBII", value[:16])
                by = "nobody"
                if len(value) >= 32:
                    raw = value[20:24] if version == V4 else value[24:40]
                    by = socket.inet_ntop(FAMILIES[version], raw)
                return f"{errno.errorcode[number]} {origin} {icmp}/{code} info {info} by {by}, quoting {data[skipped:16]!r}"
    return "silence"


@script
def datagrams_of_all_lengths(version):
    there = udp(version, FAR)
    there.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
    for length in (0, 1, 1400, 1472, 1473, 9000, 40000, 65507 if version == V4 else 65527):
        data = pattern(length)

        def echoed():
            there.send(data)
            return "the same" if there.recv(1 << 16) == data else "another"
        yield f"{length} bytes", attempt(echoed)
    yield "too long", attempt(lambda: there.send(pattern(65536)))


@script
def datagrams_to_a_closed_port(version):
    there = udp(version, FAR, far.CLOSED_PORT, 3)
    yield "send", attempt(lambda: there.send(b"hello"))
    yield "receive", attempt(lambda: there.recv(100))
    yield "again", attempt(lambda: there.send(b"hello"))
    time.sleep(0.3)
    yield "send after the error", attempt(lambda: there.send(b"hello"))
    loose = udp(version, timeout=0.5)
    loose.sendto(b"hello", (FAR[version], far.CLOSED_PORT))
    yield "not connected", attempt(lambda: loose.recv(100))


@script
def datagrams_unreachable(version):
    for what, to, number in (
        ("closed port", FAR, far.CLOSED_PORT), ("no route", NO_ROUTE, 9), ("host unreachable", UNREACHABLE, 9),
        ("prohibited", PROHIBITED, 9),
    ):
        loose = udp(version)
        tell_errors(loose, version)

        def queued():
            loose.sendto(b"hello", (to[version], number))
            return next_error(loose, version, patience=0.5)
        yield f"{what}, queue", insisting(queued, lambda text: text == "silence", PATIENCE)
    for what, to, number in (("closed port", FAR, far.CLOSED_PORT), ("prohibited", PROHIBITED, 9)):
        there = udp(version, to, number, 0.5)
        yield what, insisting(
            lambda: attempt(lambda: there.send(b"hello") and there.recv(100)), lambda text: text == "silence", PATIENCE)
    there = udp(version, BLACK_HOLE, 9, 1)
    there.send(b"hello")
    yield "black hole", attempt(lambda: there.recv(100))


@script
def datagrams_traced(version):
    """As traceroute does it."""
    for hops in (1, 2, 3, 4):
        there = udp(version)
        tell_errors(there, version)
        there.setsockopt(level(version), socket.IP_TTL if version == V4 else socket.IPV6_UNICAST_HOPS, hops)
        there.sendto(b"where?", (FAR[version], 33434 + hops))
        yield f"{hops} hops", next_error(there, version)


@script
def datagrams_with_marks(version):
    there = udp(version, FAR)
    v4 = version == V4
    there.setsockopt(level(version), socket.IP_RECVTOS if v4 else socket.IPV6_RECVTCLASS, 1)
    for mark in (0x00, 0xB8, 0xB9, 0x03):
        there.setsockopt(level(version), socket.IP_TOS if v4 else socket.IPV6_TCLASS, mark)
        there.send(b"?")
        data, controls, _, _ = there.recvmsg(100, 256)
        yield f"{mark:#x} far", data.decode()
        marks = sorted(f"{kind}={int.from_bytes(value[:4], sys.byteorder)}" for _, kind, value in controls)
        yield f"{mark:#x} near", " ".join(marks)


@script
def datagrams_and_their_hops(version):
    there = udp(version, FAR)
    there.setsockopt(level(version), IP_RECVTTL if version == V4 else socket.IPV6_RECVHOPLIMIT, 1)
    there.send(b"hello")
    _, controls, _, _ = there.recvmsg(100, 256)
    yield "near", " ".join(f"{kind}={int.from_bytes(value[:4], sys.byteorder)}" for _, kind, value in controls)


@script
def one_port_for_everybody(version):
    there = udp(version)
    ports = set()
    for number in (far.ECHO_PORT, far.ECHO_PORT + 1):
        there.sendto(b"@", (FAR[version], number))
        ports.add(there.recv(100))
    yield "ports", f"{len(ports)}"


@script
def a_connected_socket_hears_its_peer_alone(version):
    there = udp(version, FAR, timeout=0.5)
    there.send(b"hello")
    yield "peer", attempt(lambda: there.recv(100))
    yield "nobody else", attempt(lambda: there.recv(100))


# Pings.

def ping(version, to, length=8, hops=None):
    there = socket.socket(FAMILIES[version], socket.SOCK_DGRAM, socket.IPPROTO_ICMP if version == V4 else ICMP6)
    there.settimeout(3)
    tell_errors(there, version)
    if hops:
        there.setsockopt(level(version), socket.IP_TTL if version == V4 else socket.IPV6_UNICAST_HOPS, hops)
    data = pattern(length)
    there.sendto(struct.pack("!BBHHH", 8 if version == V4 else 128, 0, 0, 0, 7) + data, (to[version], 0))
    return there, data


@script
def pings(version):
    for length in (0, 8, 1400, 4000):
        def once():
            there, data = ping(version, FAR, length)
            answer, peer = there.recvfrom(1 << 16)
            return f"{answer[0]}/{answer[1]} number {answer[7]} same {answer[8:] == data} from {peer[0]}"
        yield f"{length} bytes", attempt(once)


@script
def pings_with_marks(version):
    v4 = version == V4
    for mark in (0x00, 0xB8):
        there = socket.socket(FAMILIES[version], socket.SOCK_DGRAM, socket.IPPROTO_ICMP if v4 else ICMP6)
        there.settimeout(3)
        there.setsockopt(level(version), IP_RECVTTL if v4 else socket.IPV6_RECVHOPLIMIT, 1)
        there.setsockopt(level(version), socket.IP_RECVTOS if v4 else socket.IPV6_RECVTCLASS, 1)
        there.setsockopt(level(version), socket.IP_TOS if v4 else socket.IPV6_TCLASS, mark)
        there.sendto(struct.pack("!BBHHH", 8 if v4 else 128, 0, 0, 0, 7), (FAR[version], 0))
        _, controls, _, _ = there.recvmsg(100, 256)
        yield f"{mark:#x}", " ".join(sorted(f"{kind}={int.from_bytes(value[:4], sys.byteorder)}" for _, kind, value in controls))


@script
def pings_traced(version):
    for hops in (1, 2):
        # The kernel chooses identifier and checksum.
        yield f"{hops} hops", next_error(ping(version, FAR, hops=hops)[0], version, 6)
    for what, to in (("no route", NO_ROUTE), ("host unreachable", UNREACHABLE), ("prohibited", PROHIBITED)):
        yield what, insisting(
            lambda: next_error(ping(version, to)[0], version, 6, 0.5), lambda text: text == "silence", PATIENCE)
    there, _ = ping(version, BLACK_HOLE)
    there.settimeout(1)
    yield "black hole", attempt(lambda: there.recv(100))


def main():
    global FAR, NARROW, VANISHING
    FAR, NARROW, VANISHING = ({V4: v4, V6: v6} for v4, v6 in zip(sys.argv[1::2], sys.argv[2::2]))
    lines = {}

    def run(version, function):
        name = f"IPv{version} {function.__name__}"
        try:
            for what, text in function(version):
                lines.setdefault(name, []).append(f"{name}: {what}: {text}")
        except Exception as error:
            lines.setdefault(name, []).append(f"{name}: {type(error).__name__} {error}")

    def run_all(version, functions):
        for function in functions:
            run(version, function)

    far.until(lambda: all(ask(version, "echo now") == "now" for version in FAMILIES))
    slow = [connect_errors, connect_silence, slow_reader, keepalive_answered, keepalive_vanished, datagrams_unreachable, pings_traced]
    lanes = [[function] for function in slow] + [[function for function in SCRIPTS if function not in slow]]
    threads = [
        threading.Thread(target=run_all, args=(version, lane)) for version in FAMILIES for lane in lanes
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for version in FAMILIES:
        for function in SCRIPTS:
            print("\n".join(lines[f"IPv{version} {function.__name__}"]))


if __name__ == "__main__":
    main()
