"""A name server on port 53 of the addresses given: 192.0.2.77 and 2001:db8::77 for every name but
missing.example, and 3,000 bytes of text, which no datagram of 512 bytes holds."""
import socket, struct, sys, threading


def answered(query, limit):
    number, flags, _ = struct.unpack("!HHH", query[:6])
    at = 12
    labels = []
    while query[at]:
        labels.append(query[at + 1 : at + 1 + query[at]])
        at += 1 + query[at]
    question = query[12 : at + 5]
    kind = struct.unpack("!H", query[at + 1 : at + 3])[0]
    # What follows the question is the OPT record, whose class is the longest datagram.
    if limit and query[at + 5 :]:
        limit = struct.unpack("!H", query[at + 8 : at + 10])[0]
    data = {
        1: [socket.inet_pton(socket.AF_INET, "192.0.2.77")],
        28: [socket.inet_pton(socket.AF_INET6, "2001:db8::77")],
        16: [b"\xc8" + bytes([65 + n]) * 200 for n in range(15)],
    }.get(kind, [])
    missing = labels[0] == b"missing"
    if missing:
        data = []
    head = lambda flags, count: struct.pack("!HHHHHH", number, flags, 1, count, 0, 0) + question
    body = b"".join(struct.pack("!HHHIH", 0xC00C, kind, 1, 60, len(text)) + text for text in data)
    whole = head(0x8583 if missing else 0x8580, len(data)) + body
    return whole if not limit or len(whole) <= limit else head(0x8780, 0)


def datagrams(server):
    while True:
        query, client = server.recvfrom(4096)
        server.sendto(answered(query, 512), client)


def connection(stream):
    with stream, stream.makefile("rb") as reader:
        while len(head := reader.read(2)) == 2:
            answer = answered(reader.read(struct.unpack("!H", head)[0]), 0)
            stream.sendall(struct.pack("!H", len(answer)) + answer)


def streams(server):
    while True:
        threading.Thread(target=connection, args=[server.accept()[0]], daemon=True).start()


for address in sys.argv[1:]:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    udp = socket.socket(family, socket.SOCK_DGRAM)
    udp.bind((address, 53))
    tcp = socket.create_server((address, 53), family=family)
    threading.Thread(target=datagrams, args=[udp]).start()
    threading.Thread(target=streams, args=[tcp]).start()
