# A WebSocket service. Prints its address as a JSON string; what happens is a line of JSON in the file named by the first
# argument. What it is told to do it does: "close CODE REASON", "ping", else it sends back what it hears.
import asyncio, json, sys

from websockets.asyncio.server import serve
from websockets.exceptions import ConnectionClosed

log = open(sys.argv[1], "a")


def note(**what):
    print(json.dumps(what), file=log, flush=True)


async def talk(connection):
    note(event="open", path=connection.request.path, headers=list(connection.request.headers.raw_items()))
    try:
        while True:
            message = await connection.recv()
            if isinstance(message, str) and message.startswith("close "):
                _, code, reason = message.split(" ", 2)
                await connection.close(int(code), reason)
                break
            if message == "ping":
                await (await connection.ping(b"from the service"))
                await connection.send("ponged")
                continue
            note(event="message", length=len(message))
            await connection.send(message)
    except ConnectionClosed:
        pass
    finally:
        note(event="closed", path=connection.request.path, code=connection.close_code, reason=connection.close_reason)


async def main():
    async with serve(talk, "127.0.0.1", 0, max_size=None, subprotocols=["chat.v2", "chat.v1"]) as server:
        print('"127.0.0.1:%d"' % server.sockets[0].getsockname()[1], flush=True)
        await server.serve_forever()


asyncio.run(main())
