# Small requests on connections that are open already, beside one bulk flow towards the client. Arguments: the port, seconds,
# connections with small requests. Prints a JSON line: milliseconds of the requests, and the bulk bytes.
import asyncio, json, sys, time

port, seconds, connections = int(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3])
latencies = []
moved = 0


async def opened(kind):
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(kind)
    return reader, writer


async def requests(reader, writer, until):
    while time.monotonic() < until:
        begun = time.monotonic()
        writer.write(bytes(64))
        await reader.readexactly(64)
        latencies.append((time.monotonic() - begun) * 1000)


async def bulk(reader):
    global moved
    while data := await reader.read(256 * 1024):
        moved += len(data)


async def main():
    small = [await opened(b"e") for _ in range(connections)]
    for reader, writer in small:
        writer.write(bytes(64))
        await reader.readexactly(64)
    reader, writer = await opened(b"b")
    flow = asyncio.create_task(bulk(reader))
    await asyncio.sleep(2)  # the flow has found its speed
    begun, before = time.monotonic(), moved
    await asyncio.gather(*(requests(*each, begun + seconds) for each in small))
    spent = time.monotonic() - begun
    flow.cancel()
    latencies.sort()
    at = lambda part: round(latencies[min(len(latencies) - 1, int(len(latencies) * part))], 1)
    print(json.dumps({
        "requests": len(latencies), "p50": at(0.5), "p90": at(0.9), "p99": at(0.99), "max": at(1),
        "bulk_kib_per_second": round((moved - before) / 1024 / spent),
    }))


asyncio.run(main())
