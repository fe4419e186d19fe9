# Clients of websocket_service.py: SCENARIO ADDRESS [ARGUMENT]. Ends with 0 when everything was as it should be.
import asyncio, faulthandler, json, sys

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

faulthandler.dump_traceback_later(120, exit=True)
scenario, address, arguments = sys.argv[1], sys.argv[2], sys.argv[3:]


def to(path="/chat", **more):
    more = {"subprotocols": ["chat.v2"], **more}
    return connect(f"ws://{address}{path}", max_size=None, open_timeout=60, close_timeout=30, proxy=None, **more)


def say(**what):
    print(json.dumps(what), flush=True)


async def echo():
    async with to(subprotocols=["chat.v1"]) as connection:
        assert connection.subprotocol == "chat.v1"
        for message in ["hello", b"\x00\xff" * 10, "", b"", "ü" * 1000]:
            await connection.send(message)
            assert await connection.recv() == message
        # Many at once, both ways.
        sending = asyncio.gather(*(connection.send(f"{number}") for number in range(2000)))
        assert [await connection.recv() for _ in range(2000)] == [f"{number}" for number in range(2000)]
        await sending


async def large():
    message = bytes(range(256)) * 40960
    async with to() as connection:
        for _ in range(3):
            await connection.send(message)
            assert await connection.recv() == message


async def pings():
    async with to(ping_interval=0.1, ping_timeout=30) as connection:
        assert await (await connection.ping(b"from the caller")) >= 0
        await connection.send("ping")
        assert await connection.recv() == "ponged"
        await asyncio.sleep(1)
        await connection.send("still")
        assert await connection.recv() == "still"


async def close_codes():
    async with to("/mine") as connection:
        await connection.close(4001, "my reasons")
    connection = await to("/yours")
    await connection.send("close 4002 your reasons")
    try:
        await connection.recv()
        raise AssertionError("open")
    except ConnectionClosed as closed:
        assert closed.rcvd.code == 4002 and closed.rcvd.reason == "your reasons", closed


async def refused():
    try:
        async with to(arguments[0]):
            raise AssertionError("open")
    except InvalidStatus as refused:
        say(status=refused.response.status_code, body=refused.response.body.decode())


# Says "ready", and then how it ended.
async def stay():
    connection = await to(arguments[0] if arguments else "/chat", ping_interval=None)
    await connection.send("x")
    assert await connection.recv() == "x"
    say(ready=True)
    try:
        message = await connection.recv()
        say(message=str(message))
    except ConnectionClosed as closed:
        say(clean=closed.rcvd is not None)


# Talks on until the connection ends.
async def chatter():
    connection = await to()
    say(ready=True)
    try:
        while True:
            await connection.send("x")
            await connection.recv()
    except ConnectionClosed as closed:
        say(clean=closed.rcvd is not None)


asyncio.run(globals()[scenario]())
