# An ASGI service under Hypercorn that speaks HTTP/1 and, with prior knowledge, HTTP/2. Prints its address as a JSON string.
# Every request head that reaches it is a line of JSON in the file named by the first argument.
import asyncio, hashlib, json, socket, sys
from urllib.parse import parse_qs

from hypercorn.asyncio import serve
from hypercorn.config import Config

NAME = sys.argv[2] if len(sys.argv) > 2 else ""
log = open(sys.argv[1], "a")
block = hashlib.shake_256(b"postern").digest(64 * 1024)
uploads, gates, tries = {}, {}, {}
# What every answer of no other path is, beside its name: seconds that it waits, and its status.
mood = {"delay": 0.0, "status": 200}


async def body_of(receive, upload=None):
    while True:
        event = await receive()
        if event["type"] == "http.disconnect":
            if upload is not None:
                upload["gone"] = True
            return
        if upload is not None:
            upload["bytes"] += len(event.get("body", b""))
        yield event.get("body", b"")
        if not event.get("more_body"):
            if upload is not None:
                upload["whole"] = True
            return


async def answer(send, body, status=200, headers=()):
    headers = [(b"content-type", b"text/plain"), (b"content-length", b"%d" % len(body)), *headers]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def begin(send):
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/octet-stream")]})


async def part(send, body, more=True):
    await send({"type": "http.response.body", "body": body, "more_body": more})


async def app(scope, receive, send):
    if scope["type"] != "http":
        return
    headers = [[name.decode("latin1"), value.decode("latin1")] for name, value in scope["headers"]]
    raw = scope["raw_path"].decode("latin1")
    line = {"method": scope["method"], "path": raw, "resolved": scope["path"], "query": scope["query_string"].decode("latin1")}
    print(json.dumps({**line, "version": scope["http_version"], "headers": headers}), file=log, flush=True)
    query = {name: values[0] for name, values in parse_qs(scope["query_string"].decode()).items()}
    name, path = query.get("name", ""), scope["path"]

    if path == "/echo":
        await begin(send)
        async for data in body_of(receive):
            await part(send, data)
        await part(send, b"", False)
    elif path == "/hash":
        digest, count = hashlib.sha256(), 0
        async for data in body_of(receive):
            digest.update(data)
            count += len(data)
        await answer(send, f"{count} {digest.hexdigest()}".encode())
    elif path == "/bytes":
        await begin(send)
        left = int(query["n"])
        while left:
            step = min(left, len(block))
            await part(send, block[:step])
            left -= step
        await part(send, b"", False)
    elif path == "/headers":
        await answer(send, json.dumps(headers).encode())
    elif path == "/gate":
        await begin(send)
        await part(send, b"first\n")
        await gates.setdefault(name, asyncio.Event()).wait()
        await part(send, b"last\n", False)
    elif path == "/open":
        gates.setdefault(name, asyncio.Event()).set()
        await answer(send, b"open\n")
    elif path == "/upload":
        upload = uploads.setdefault(name, {"bytes": 0, "whole": False, "gone": False})
        async for _ in body_of(receive, upload):
            pass
        await answer(send, b"taken\n")
    elif path == "/seen":
        await answer(send, json.dumps(uploads.get(name, {"bytes": 0, "whole": False, "gone": False})).encode())
    elif path == "/endless":
        upload = uploads.setdefault(name, {"bytes": 0, "whole": False, "gone": False})

        async def watch():
            async for _ in body_of(receive):
                pass
            while (await receive())["type"] != "http.disconnect":
                pass
            upload["gone"] = True

        watching = asyncio.create_task(watch())
        await begin(send)
        while not upload["gone"]:
            await part(send, block)
            upload["bytes"] += len(block)
            await asyncio.sleep(float(query.get("pause", "0")))
        await watching
    elif path == "/status":
        code = int(query["code"])
        etag = [(b"etag", b'"x"')]
        if code in (204, 304):
            await send({"type": "http.response.start", "status": code, "headers": etag})
            await send({"type": "http.response.body", "body": b""})
        else:
            await answer(send, b"status\n", code, etag)
    elif path == "/sleep":
        await asyncio.sleep(float(query["seconds"]))
        await answer(send, NAME.encode())
    elif path == "/mood":
        mood.update({key: type(mood[key])(value) for key, value in query.items()})
        await answer(send, json.dumps(mood).encode())
    elif path == "/flaky":
        tries[name] = tries.get(name, 0) + 1
        await answer(send, b"%d" % tries[name], 503 if tries[name] <= int(query["times"]) else 200)
    else:
        async for _ in body_of(receive):
            pass
        await asyncio.sleep(mood["delay"])
        await answer(send, (NAME or "ok\n").encode(), mood["status"])


async def main():
    listener = socket.create_server(("127.0.0.1", 0), backlog=4096)
    config = Config()
    config.bind = [f"fd://{listener.fileno()}"]
    config.keep_alive_timeout = 600
    config.h2_max_concurrent_streams = 1000
    config.h11_max_incomplete_size = 256 * 1024
    config.h2_max_header_list_size = 256 * 1024
    config.errorlog = None
    config.accesslog = None
    print('"127.0.0.1:%d"' % listener.getsockname()[1], flush=True)
    await serve(app, config, mode="asgi")


asyncio.run(main())
