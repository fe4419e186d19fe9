# Clients of http_service.py: SCENARIO ADDRESS [ARGUMENT]. Ends with 0 when everything was as it should be.
import array, fcntl, faulthandler, http.client, json, select, socket, sys, termios, time

from http2 import Client

faulthandler.dump_traceback_later(120, exit=True)
scenario, address, arguments = sys.argv[1], sys.argv[2], sys.argv[3:]
host, port = address.rsplit(":", 1)


def get(path):
    connection = http.client.HTTPConnection(host, int(port), timeout=60)
    connection.request("GET", path)
    answer = connection.getresponse()
    return answer.status, answer.read()


def seen(name):
    return json.loads(get(f"/seen?name={name}")[1])


def eventually(what, look):
    deadline = time.monotonic() + 30
    while True:
        found = look()
        if found:
            return found
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


# Until it has been the same for two seconds.
def settled(look):
    last, since = look(), time.monotonic()
    while time.monotonic() - since < 2:
        time.sleep(0.1)
        now = look()
        if now != last:
            last, since = now, time.monotonic()
    return last


def download_streams_over_http1():
    connection = http.client.HTTPConnection(host, int(port), timeout=60)
    connection.request("GET", "/gate?name=one")
    answer = connection.getresponse()
    assert answer.status == 200 and answer.readline() == b"first\n"
    assert get("/open?name=one")[0] == 200
    assert answer.read() == b"last\n"


def download_streams_over_http2():
    client = Client(address)
    stream = client.streams[client.request(path="/gate?name=two")]
    assert client.until(lambda: stream.body == b"first\n") and not stream.ended
    assert client.call(path="/open?name=two").status == 200
    assert client.until(lambda: stream.ended) and stream.body == b"first\nlast\n"


def upload_streams_over_http1():
    connection = http.client.HTTPConnection(host, int(port), timeout=60)
    connection.putrequest("POST", "/upload?name=three")
    connection.putheader("Transfer-Encoding", "chunked")
    connection.endheaders()
    connection.send(b"5\r\nfirst\r\n")
    eventually("the service has the first part", lambda: seen("three") == {"bytes": 5, "whole": False, "gone": False})
    connection.send(b"4\r\nlast\r\n0\r\n\r\n")
    assert connection.getresponse().read() == b"taken\n"
    assert seen("three") == {"bytes": 9, "whole": True, "gone": False}


def upload_streams_over_http2():
    client = Client(address)
    id = client.request("POST", "/upload?name=four", body=b"first", end=False)
    eventually("the service has the first part", lambda: seen("four") == {"bytes": 5, "whole": False, "gone": False})
    client.send(id, b"last", end=True)
    stream = client.streams[id]
    assert client.until(lambda: stream.ended) and stream.body == b"taken\n", stream.body


# The service answers while the request still comes.
def both_ways_at_once():
    client = Client(address)
    id = client.request("POST", "/echo", body=b"ping", end=False)
    stream = client.streams[id]
    for turn in range(1, 50):
        assert client.until(lambda: len(stream.body) == 4 * turn), (turn, stream.body)
        client.send(id, b"pong", end=turn == 49)
    assert client.until(lambda: stream.ended) and len(stream.body) == 200


# Bytes that have come and nobody has read.
def unread(connection):
    count = array.array("i", [0])
    fcntl.ioctl(connection, termios.FIONREAD, count)
    return count[0]


def slow_reader_over_http1():
    connection = socket.create_connection((host, int(port)), timeout=60)
    connection.sendall(b"GET /large HTTP/1.1\r\nHost: api\r\n\r\n")
    assert connection.recv(1024).startswith(b"HTTP/1.1 200")
    settled(lambda: unread(connection))
    connection.close()


def slow_reader_over_http2():
    client = Client(address, receives=False)
    # The stream stands still, not the connection.
    client.h2.increment_flow_control_window(1 << 30)
    stream = client.streams[client.request(path="/large")]
    assert client.until(lambda: stream.headers is not None)
    settled(lambda: unread(client.socket))
    for _ in range(10):
        assert client.call(path="/index.html").status == 200
    client.close()


# Prints how much could be sent.
def slow_service():
    connection = socket.create_connection((host, int(port)), timeout=60)
    connection.sendall(b"POST /sink HTTP/1.1\r\nHost: api\r\nTransfer-Encoding: chunked\r\n\r\n")
    connection.setblocking(False)
    chunk = b"10000\r\n" + b"x" * 65536 + b"\r\n"
    sent, offset = 0, 0
    while select.select([], [connection], [], 3)[1]:
        offset += connection.send(chunk[offset:])
        if offset == len(chunk):
            sent, offset = sent + 65536, 0
        assert sent < 1 << 30, "it is taken without an end"
    print(sent)


def an_early_answer_is_heard():
    connection = socket.create_connection((host, int(port)), timeout=60)
    connection.sendall(b"POST /status HTTP/1.1\r\nHost: api\r\nContent-Length: 1000000\r\n\r\nx")
    heard = connection.recv(1024)
    assert b" 413 " in heard, heard


globals()[scenario](*arguments)
