# Echoes to those who begin with "e", sends without end to those who begin with "b". Listens on 127.0.0.1 and the port given.
import asyncio, sys


async def serve(reader, writer):
    try:
        kind = await reader.read(1)
        if kind == b"b":
            block = bytes(64 * 1024)
            while True:
                writer.write(block)
                await writer.drain()
        while data := await reader.read(4096):
            writer.write(data)
    except OSError:
        pass
    writer.close()


async def main():
    server = await asyncio.start_server(serve, "127.0.0.1", int(sys.argv[1]))
    await server.serve_forever()


asyncio.run(main())
