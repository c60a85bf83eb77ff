"""The far end of the differential test: a server for each script, which notes what it saw of its clients.

far.py ADDRESS… VANISHING4 VANISHING6: serves until it is ended. Port 7000 answers "seen IPvN NAME\n" with what was
seen of the script of that name, oldest first; "vanishing add" has the last two addresses fall silent, "vanishing del" speak.
"""
import hashlib
import os
import queue
import select
import socket
import struct
import subprocess
import sys
import threading
import time

PATIENCE = 20
seen = {}


def note(name, text):
    seen.setdefault(name, queue.Queue()).put(text)


def name_of(error):
    import errno
    return errno.errorcode.get(error.errno, str(error)) if error.errno else type(error).__name__


def rest(stream):
    """Reads to the end, and says how it ended."""
    total, digest = 0, hashlib.sha256()
    try:
        while data := stream.recv(1 << 16):
            total += len(data)
            digest.update(data)
        return f"{total} bytes {digest.hexdigest()[:8]}, then the end"
    except OSError as error:
        return f"{total} bytes, then {name_of(error)}"


def exactly(stream, count):
    data = b""
    while len(data) < count:
        more = stream.recv(count - len(data))
        if not more:
            raise EOFError(f"{len(data)} of {count}")
        data += more
    return data


def reset(stream):
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    stream.close()


def pattern(count):
    return (bytes(range(251)) * (count // 251 + 1))[:count]


# What the server does in each script of TCP, and what it says of it.

def half_close_by_client(stream):
    question = rest(stream)
    stream.sendall(b"a long answer")
    stream.close()
    return question


def half_close_by_server(stream):
    stream.sendall(b"banner")
    stream.shutdown(socket.SHUT_WR)
    return rest(stream)


def nothing_said(stream):
    return rest(stream)


def client_resets(stream):
    stream.sendall(b"go")
    return rest(stream)


def server_resets(stream):
    stream.sendall(b"half of a")
    exactly(stream, 2)
    reset(stream)
    return "reset"


def client_resets_before_it_is_read(stream):
    stream.sendall(b"go")
    time.sleep(1)
    return rest(stream)


def server_resets_before_it_is_read(stream):
    exactly(stream, 2)
    stream.sendall(pattern(20000))
    time.sleep(0.3)
    reset(stream)
    return "reset"


def server_closes_unread(stream):
    stream.sendall(b"!")
    # The client's word lies here unread: a close is a reset then.
    while not struct.unpack("i", fcntl_fionread(stream))[0]:
        time.sleep(0.001)
    stream.close()
    return "closed"


def fcntl_fionread(stream):
    import fcntl
    import termios
    return fcntl.ioctl(stream, termios.FIONREAD, b"\0" * 4)


def client_closes_unread(stream):
    stream.sendall(b"nobody will read this")
    return rest(stream)


def write_after_close(stream):
    stream.close()
    return "closed"


def shutdown_read(stream):
    exactly(stream, 2)
    stream.sendall(b"after the client stopped to read")
    return rest(stream)


def shutdown_both(stream):
    return rest(stream)


def crossing(stream):
    stream.sendall(b"to you")
    stream.shutdown(socket.SHUT_WR)
    return rest(stream)


def large_then_close(stream):
    return rest(stream)


def large_from_server(stream):
    stream.sendall(pattern(4 << 20))
    stream.close()
    return "sent"


def slow_reader(stream):
    # The client must come to a stop, and all arrive in the end.
    exactly(stream, 1)
    time.sleep(1)
    return rest(stream)


def urgent_to_client(stream):
    stream.sendall(b"before")
    stream.send(b"!", socket.MSG_OOB)
    exactly(stream, 1)
    stream.sendall(b"after")
    return rest(stream)


def urgent_to_server(stream):
    stream.sendall(b"go")
    exactly(stream, 6)
    until(lambda: select.select([], [], [stream], 0)[2], 2)
    try:
        told = out_of_band(stream).decode()
    except OSError as error:
        told = name_of(error)
    stream.sendall(b"+")
    return f"out of band {told}, {rest(stream)}"


def out_of_band(stream):
    """The urgent byte, which nobody waits for."""
    patience = stream.gettimeout()
    stream.settimeout(None)
    try:
        return stream.recv(1, socket.MSG_OOB)
    finally:
        stream.settimeout(patience)


def until(is_so, patience=PATIENCE):
    end = time.time() + patience
    while time.time() < end:
        try:
            if is_so():
                return
        except OSError:
            pass
        time.sleep(0.02)


def keepalive_answered(stream):
    return rest(stream)


def keepalive_vanished(stream):
    return rest(stream)


STREAMS = [
    half_close_by_client, half_close_by_server, nothing_said, client_resets, server_resets,
    client_resets_before_it_is_read, server_resets_before_it_is_read, server_closes_unread,
    client_closes_unread, write_after_close, shutdown_read, shutdown_both, crossing, large_then_close,
    large_from_server, slow_reader, urgent_to_client, urgent_to_server, keepalive_answered, keepalive_vanished,
]
FIRST_PORT, CLOSED_PORT, ECHO_PORT, ASK_PORT = 7100, 7099, 7001, 7000


def port(name):
    return FIRST_PORT + [server.__name__ for server in STREAMS].index(name)


def each(listener, take):
    while True:
        stream, peer = listener.accept()
        stream.settimeout(PATIENCE)
        threading.Thread(target=take, args=(stream,), daemon=True).start()


def serve(server):
    def take(stream):
        version = 4 if stream.getsockname()[0].startswith("::ffff:") else 6
        try:
            text = server(stream)
        except (OSError, EOFError) as error:
            text = f"failed: {type(error).__name__} {error}"
        note(f"IPv{version} {server.__name__}", text)
        try:
            stream.close()
        except OSError:
            pass
    listener = socket.create_server(("::", port(server.__name__)), family=socket.AF_INET6, dualstack_ipv6=True, backlog=64)
    threading.Thread(target=each, args=(listener, take), daemon=True).start()


def answer(stream):
    name = b""
    while not name.endswith(b"\n"):
        name += exactly(stream, 1)
    word, _, about = name.decode().strip().partition(" ")
    if word == "vanishing":
        for vanishing in sys.argv[-2:]:
            family = "-6" if ":" in vanishing else "-4"
            subprocess.run(["ip", family, "rule", about, "from", vanishing, "blackhole"], check=True)
    elif word == "echo":
        stream.sendall(about.encode())
    else:
        try:
            text = seen.setdefault(about, queue.Queue()).get(timeout=PATIENCE)
        except queue.Empty:
            text = "nothing"
        stream.sendall(text.encode())
    stream.close()


def echo(family, address, number):
    """Echoes datagrams; those that begin with "?" are answered by what was seen of them, with marks of its own."""
    is_v4 = family == socket.AF_INET
    level = socket.IPPROTO_IP if is_v4 else socket.IPPROTO_IPV6
    get_class, set_class = (socket.IP_RECVTOS, socket.IP_TOS) if is_v4 else (socket.IPV6_RECVTCLASS, socket.IPV6_TCLASS)
    get_hops = 12 if is_v4 else socket.IPV6_RECVHOPLIMIT
    server = socket.socket(family, socket.SOCK_DGRAM)
    if not is_v4:
        server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    server.setsockopt(level, get_class, 1)
    server.setsockopt(level, get_hops, 1)
    server.bind((address, number))
    while True:
        data, controls, _, peer = server.recvmsg(1 << 16, 256)
        if data.startswith(b"?"):
            marks = []
            for _, kind, value in controls:
                marks.append(f"{kind}={int.from_bytes(value[:4], sys.byteorder)}")
            server.setsockopt(level, set_class, 0x2B)
            reply = " ".join(sorted(marks)).encode()
        elif data.startswith(b"@"):
            reply = str(peer[1]).encode()
        else:
            server.setsockopt(level, set_class, 0)
            reply = data
        try:
            server.sendto(reply, peer)
        except OSError as error:
            note("echo", name_of(error))


if __name__ == "__main__":
    for server in STREAMS:
        serve(server)
    asking = socket.create_server(("::", ASK_PORT), family=socket.AF_INET6, dualstack_ipv6=True, backlog=64)
    for number in (ECHO_PORT, ECHO_PORT + 1):
        for address in sys.argv[1:]:
            family = socket.AF_INET6 if ":" in address else socket.AF_INET
            threading.Thread(target=echo, args=(family, address, number), daemon=True).start()
    print("ready", flush=True)
    each(asking, answer)
