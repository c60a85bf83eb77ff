"""hostile.py trap PORT: listens where nobody may come, on every address; whoever comes is noted in the file `trapped`.
hostile.py neighbour HOST HOST PORT: echoes over TCP, a connection to each host, until there is a file `stop`; writes to
the file `echoes` how many there were.
hostile.py attack SEED FRAMES HOST HOST PORT GATEWAY GATEWAY: writes hostile frames to the device of this space."""
import os, random, selectors, socket, struct, sys, time

PACKET_VNET_HDR = 15
SOL_PACKET = 263


def trap(port):
    selector = selectors.DefaultSelector()
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        server = socket.socket(socket.AF_INET6, kind)
        server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        server.bind(("::", port))
        if kind == socket.SOCK_STREAM:
            server.listen(100)
        selector.register(server, selectors.EVENT_READ, kind)
    while True:
        for key, _ in selector.select():
            who = key.fileobj.accept()[1] if key.data == socket.SOCK_STREAM else key.fileobj.recvfrom(1)[1]
            with open("trapped", "a") as file:
                print(who, file=file)


def neighbour(hosts, port):
    streams = [socket.create_connection((host, port), 20) for host in hosts]
    for stream in streams:
        stream.settimeout(20)
    count = 0
    while not os.path.exists("stop"):
        for stream in streams:
            said = b"number %020d" % count
            stream.sendall(said)
            heard = b""
            while len(heard) < len(said):
                heard += stream.recv(100) or sys.exit("the connection ended")
            if heard != said:
                sys.exit(f"said {said}, heard {heard}")
        count += 1
        with open("echoes.new", "w") as file:
            print(count, file=file)
        os.rename("echoes.new", "echoes")
        time.sleep(0.002)


def checksum(data):
    data += b"\0" * (len(data) % 2)
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total ^ 0xFFFF


class Attack:
    def __init__(self, seed, hosts, port, gateways):
        self.random = random.Random(seed)
        self.own = [own_address(host) for host in hosts]
        self.port = port
        pack = lambda text: socket.inet_pton(socket.AF_INET6 if ":" in text else socket.AF_INET, text)
        closed = (["127.0.0.1", "0.0.0.0", "169.254.169.254", "255.255.255.255", "224.0.0.1"],
                  ["::1", "::", "::ffff:127.0.0.1", "fe80::1", "ff02::1", "64:ff9b::7f00:1"])
        self.places = [[pack(host), pack(gateway)] + [pack(text) for text in others]
                       for host, gateway, others in zip(hosts, gateways, closed)]
        self.own = [pack(text) for text in self.own]

    def frame(self):
        """A virtio-net header and a packet."""
        rng = self.random
        packet = bytearray(self.packet())
        for _ in range(rng.choice([0, 0, 1, 2, 4])):
            place = rng.randrange(min(len(packet), 60))
            what = rng.randrange(5)
            if what < 3:
                packet[place] ^= 1 << rng.randrange(8)
            elif what == 3:
                packet[place] = rng.choice([0, 1, 127, 128, 255])
            else:
                del packet[max(place, 1):]
                break
        if len(packet) >= 20 and packet[0] >> 4 == 4 and rng.random() < 0.9:
            end = min(max(packet[0] & 15, 5) * 4, len(packet))
            packet[10:12] = b"\0\0"
            packet[10:12] = struct.pack("!H", checksum(bytes(packet[:end])))
        start = 20 if packet[0] >> 4 == 4 else 40
        header = [0] * 6
        if rng.random() < 0.7:
            # Often right, so that the kernel passes it on.
            header = [rng.choice([0, 1, 1, 2, 3]), rng.choice([0, 0, 1, 4, 5, 3, 0x81, 255]), start + 20, 1400, start,
                      rng.choice([16, 6])]
            for place in range(2, 6):
                if rng.random() < 0.2:
                    header[place] = rng.choice([0, 1, 7, 0x7FFF, 0xFFFF, rng.randrange(65536)])
        return header, bytes(packet)

    def packet(self):
        rng = self.random
        family = rng.randrange(2)
        target = rng.choice(self.places[family][:2] * 3 + self.places[family])
        # The neighbour's address is its own; whoever speaks for it may of course end what it does.
        low = bytes([rng.randrange(3, 250)])
        source = rng.choice([self.own[family][:-1] + low] * 4 + self.places[family])
        if source == self.own[family]:
            source = source[:-1] + bytes([source[-1] ^ 1])
        protocol = rng.choice([6, 6, 17, 17, [1, 58][family], 44, 0, 60, 99])
        ports = struct.pack("!HH", rng.randrange(65536), rng.choice([self.port, 7000, 53, 67, 69, 0]))
        data = rng.randbytes(rng.choice([0, 1, 8, 40, 1400, 9000]))
        if protocol == 6:
            flags = rng.choice([2, 2, 2, 16, 18, 4, 1, 0, 255])
            body = ports + struct.pack("!IIBBHHH", rng.getrandbits(32), rng.getrandbits(32),
                                       rng.choice([5, 5, 5, 0, 15]) << 4, flags, rng.randrange(65536), 0,
                                       rng.randrange(65536)) + data
            at = 16
        elif protocol == 17:
            body = ports + struct.pack("!HH", rng.choice([len(data) + 8] * 4 + [0, 7, 65535]), 0) + data
            at = 6
        elif protocol in (1, 58):
            kind = rng.choice([8, 128, 3, 1, 2, 4, 11, 135, 133, 5])
            body = bytes([kind, rng.randrange(16), 0, 0]) + rng.randbytes(4) + data[:600]
            at = 2
        else:
            body = bytes([rng.choice([6, 17, 44, 0, 60, 59]), rng.choice([0, 0, 255])]) + rng.randbytes(6) + data
            at = None
        if at is not None and rng.random() < 0.8:
            pseudo = source + target + struct.pack("!II", len(body), protocol) if protocol != 1 else b""
            body = body[:at] + struct.pack("!H", checksum(pseudo + body)) + body[at + 2:]
        if family:
            return struct.pack("!IHBB", 6 << 28, len(body), protocol, 64) + source + target + body
        fragment = rng.choice([0, 0, 0, 0x2000, 0x2001, 1, 0x1FFF, 0x3FFF])
        return struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(body), rng.randrange(4), fragment, 64, protocol,
                           0) + source + target + body


def own_address(host):
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM) as one:
        one.connect((host, 9))
        return one.getsockname()[0]


def attack(seed, frames, hosts, port, gateways):
    device = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
    device.setsockopt(SOL_PACKET, PACKET_VNET_HDR, 1)
    ethernet = b""
    # A TUN device has no address.
    probe = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
    probe.bind(("port0", 0))
    own = probe.getsockname()[4]
    if len(own) == 6:
        ethernet = own[:5] + b"\x01" + own
    attack = Attack(seed, hosts, port, gateways)
    taken = refused = 0
    for number in range(frames):
        header, packet = attack.frame()
        kind = 0x86DD if packet[0] >> 4 == 6 else 0x0800
        if ethernet:
            header[2], header[4] = min(header[2] + 14, 65535), min(header[4] + 14, 65535) if header[4] else 0
            kind = attack.random.choice([kind] * 30 + [0x0806, 0x88F8, 0, 0xFFFF])
            packet = ethernet + struct.pack("!H", kind) + packet
        try:
            device.sendto(struct.pack("=BBHHHH", *header) + packet, ("port0", kind))
            taken += 1
        except OSError:
            refused += 1
        if number % 100 == 99:
            # What does not fit into the device is lost before anybody has to look at it.
            time.sleep(0.001)
    print(f"{taken} frames taken, {refused} refused by the kernel")


if sys.argv[1] == "trap":
    trap(int(sys.argv[2]))
elif sys.argv[1] == "neighbour":
    neighbour(sys.argv[2:4], int(sys.argv[4]))
else:
    seed, frames, v4, v6, port, *gateways = sys.argv[2:]
    attack(int(seed), int(frames), [v4, v6], int(port), gateways)
