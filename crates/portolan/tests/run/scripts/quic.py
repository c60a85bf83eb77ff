"""quic.py serve PORT CERTIFICATE KEY: echoes each stream of QUIC.
quic.py ask HOST PORT LENGTH: sends so many bytes by QUIC and says how many came back, and whether they are the same.
quic.py blast HOST PORT COUNT: as many datagrams of 1,200 bytes as QUIC's first ones are, to an echo of UDP, in rows of ten;
says how many came back."""
import asyncio, socket, ssl, sys


async def serve(port, certificate, key):
    from aioquic.asyncio import serve
    from aioquic.quic.configuration import QuicConfiguration

    configuration = QuicConfiguration(is_client=False, alpn_protocols=["echo"])
    configuration.load_cert_chain(certificate, key)

    async def echo(reader, writer):
        writer.write(await reader.read())
        writer.write_eof()

    handler = lambda reader, writer: asyncio.ensure_future(echo(reader, writer))
    await serve("::", port, configuration=configuration, stream_handler=handler)
    await asyncio.Future()


async def ask(host, port, length):
    from aioquic.asyncio import connect
    from aioquic.quic.configuration import QuicConfiguration

    configuration = QuicConfiguration(alpn_protocols=["echo"], verify_mode=ssl.CERT_NONE, idle_timeout=20)
    data = bytes(number % 251 for number in range(length))
    async with connect(host, port, configuration=configuration) as client:
        reader, writer = await client.create_stream()
        writer.write(data)
        writer.write_eof()
        print(length, await reader.read() == data)


def blast(host, port, count):
    family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0]
    one = socket.socket(family, kind)
    one.connect(address)
    one.settimeout(1)
    missing, tries = set(range(count)), 0
    word = lambda number: number.to_bytes(4, "big") * 300
    while missing and tries < 20:
        tries += 1
        row = []
        for number in sorted(missing):
            one.send(word(number))
            row.append(number)
            if len(row) == 10 or number == max(missing):
                try:
                    for _ in row:
                        data = one.recv(2000)
                        number = int.from_bytes(data[:4], "big")
                        assert data == word(number)
                        missing.discard(number)
                except TimeoutError:
                    pass
                row = []
    print(count - len(missing))


what, arguments = sys.argv[1], sys.argv[2:]
if what == "serve":
    asyncio.run(serve(int(arguments[0]), *arguments[1:]))
elif what == "ask":
    asyncio.run(ask(arguments[0], int(arguments[1]), int(arguments[2])))
else:
    blast(arguments[0], int(arguments[1]), int(arguments[2]))
