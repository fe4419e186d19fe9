# Calls of several kinds through sidecars. The first argument is a file with a list of calls in JSON:
# {"kind": "http" | "grpc" | "redis" | "postgres", "address", "method", "path"}; in a path {n} is a number and {u} a UUID that
# change. With seconds as a second argument all of them go on for so long, from eight threads; without, each is made once.
# Prints a JSON line: what became of each, by its place: {"ok": 17, "refused": 0, "failed": []}.
import http.client, json, socket, struct, sys, threading, time, uuid

import grpc

calls = json.load(open(sys.argv[1]))
seconds = float(sys.argv[2]) if len(sys.argv) > 2 else None
outcomes = [{"ok": 0, "refused": 0, "failed": []} for _ in calls]
channels, lock, numbers = {}, threading.Lock(), iter(range(1, 1 << 60))


def by_http(call):
    path = call["path"].replace("{n}", str(next(numbers))).replace("{u}", str(uuid.uuid4()))
    connection = http.client.HTTPConnection(call["address"], timeout=30)
    try:
        connection.request(call["method"], path, body=b"x" if call["method"] in ("POST", "PUT") else None)
        answer = connection.getresponse()
        answer.read()
    finally:
        connection.close()
    if answer.status == 403:
        return "refused"
    return "ok" if answer.status < 400 else f"{answer.status} {path}"


def by_grpc(call):
    with lock:
        channel = channels.setdefault(call["address"], grpc.insecure_channel(call["address"]))
    try:
        channel.unary_unary(call["path"])(b"hello", timeout=30)
        return "ok"
    except grpc.RpcError as error:
        return "refused" if error.code() == grpc.StatusCode.PERMISSION_DENIED else str(error.code())


def by_tcp(call, question, size):
    host, port = call["address"].rsplit(":", 1)
    try:
        with socket.create_connection((host, int(port)), timeout=30) as connection:
            connection.sendall(question)
            answer = connection.recv(size)
    except ConnectionResetError:
        return "refused"
    return "ok" if answer else "refused"


def make(call):
    kind = call["kind"]
    if kind == "http":
        return by_http(call)
    if kind == "grpc":
        return by_grpc(call)
    if kind == "redis":
        return by_tcp(call, b"PING\r\n", 7)
    # SSLRequest: answered by one byte.
    return by_tcp(call, struct.pack("!ii", 8, 80877103), 1)


def attempt(at):
    try:
        outcome = make(calls[at])
    except Exception as error:
        outcome = repr(error)
    with lock:
        if outcome in ("ok", "refused"):
            outcomes[at][outcome] += 1
        else:
            outcomes[at]["failed"].append(outcome[:200])


def go_on(thread, until):
    at = thread
    while time.monotonic() < until:
        attempt(at % len(calls))
        at += 1
        time.sleep(0.01)


if seconds is None:
    for at in range(len(calls)):
        attempt(at)
else:
    until = time.monotonic() + seconds
    threads = [threading.Thread(target=go_on, args=(thread, until)) for thread in range(8)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
print(json.dumps(outcomes))
