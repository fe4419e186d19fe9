# HTTP/2 that means harm: SCENARIO ADDRESS [CHAIN KEY BUNDLE NAME] (with files: over TLS, straight at a sidecar's port).
# Prints what became of the connection: {"ended": …, "goaway": …, "sent": …, "statuses": […]}.
import faulthandler, json, select, socket, ssl, struct, sys, time

import hpack

faulthandler.dump_traceback_later(150, exit=True)
scenario, address, files = sys.argv[1], sys.argv[2], sys.argv[3:]
DATA, HEADERS, RST, SETTINGS, PING, GOAWAY, WINDOW, CONTINUATION = 0, 1, 3, 4, 6, 7, 8, 9
END_STREAM, END_HEADERS = 1, 4


def frame(kind, flags=0, stream=0, payload=b""):
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


class Raw:
    def __init__(self, settings=b""):
        host, port = address.rsplit(":", 1)
        self.socket = socket.create_connection((host, int(port)), timeout=60)
        if files:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.load_cert_chain(files[0], files[1])
            context.load_verify_locations(files[2])
            self.socket = context.wrap_socket(self.socket, server_hostname=files[3])
        self.encoder, self.decoder = hpack.Encoder(), hpack.Decoder()
        self.ended, self.goaway, self.sent, self.next, self.buffer = False, None, 0, 1, b""
        self.statuses, self.resets, self.over = {}, {}, set()
        self.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(SETTINGS, payload=settings))

    # False once the other end has closed.
    def send(self, data):
        if self.ended:
            return False
        try:
            self.socket.sendall(data)
            self.sent += len(data)
        except OSError:
            self.ended = True
        return not self.ended

    def stream(self):
        self.next += 2
        return self.next - 2

    def block(self, headers):
        # Without an index: header tables stay as they are whatever becomes of it.
        literal = lambda text: bytes([len(text)]) + text if len(text) < 127 else None
        out = b""
        for name, value in headers:
            name, value = name.encode("latin1"), value.encode("latin1")
            for text, first in ((name, b"\x00"), (value, b"")):
                out += first
                if len(text) < 127:
                    out += bytes([len(text)])
                else:
                    out += b"\x7f"
                    rest = len(text) - 127
                    while rest >= 128:
                        out += bytes([rest % 128 + 128])
                        rest //= 128
                    out += bytes([rest])
                out += text
        return out

    def head(self, headers, flags=END_STREAM | END_HEADERS, stream=None):
        stream = self.stream() if stream is None else stream
        block = self.block(headers)
        frames = frame(HEADERS, flags & ~END_HEADERS if len(block) > 16384 else flags, stream, block[:16384])
        for at in range(16384, len(block), 16384):
            last = at + 16384 >= len(block)
            frames += frame(CONTINUATION, END_HEADERS if last else 0, stream, block[at : at + 16384])
        return stream, frames

    # Reads frames until `condition`, the end, or `patience` seconds without any.
    def read(self, condition=lambda: False, patience=30):
        while not condition() and not self.ended:
            self.socket.settimeout(patience)
            try:
                data = self.socket.recv(1 << 16)
            except TimeoutError:
                return False
            except OSError:
                data = b""
            if not data:
                self.ended = True
                return False
            self.buffer += data
            while len(self.buffer) >= 9:
                length = int.from_bytes(self.buffer[:3], "big")
                if len(self.buffer) < 9 + length:
                    break
                self.take(self.buffer[3], self.buffer[4], int.from_bytes(self.buffer[5:9], "big"), self.buffer[9 : 9 + length])
                self.buffer = self.buffer[9 + length :]
        return condition()

    def take(self, kind, flags, stream, payload):
        if kind == GOAWAY:
            self.goaway = int.from_bytes(payload[4:8], "big")
        elif kind == HEADERS:
            headers = dict(self.decoder.decode(payload))
            self.statuses.setdefault(stream, int(headers.get(":status", 0)))
        elif kind == RST:
            self.resets[stream] = int.from_bytes(payload, "big")
        elif kind == PING and not flags:
            self.send(frame(PING, 1, 0, payload))
        if kind in (DATA, HEADERS) and flags & END_STREAM:
            self.over.add(stream)

    # Answered, refused or gone.
    def settled(self, stream):
        return stream in self.statuses or stream in self.resets or self.ended

    def told(self, **more):
        print(json.dumps({"ended": self.ended, "goaway": self.goaway, "sent": self.sent, **more}))


def request(path="/", method="GET", extra=()):
    return [(":method", method), (":scheme", "http"), (":authority", "api"), (":path", path), *extra]


def rapid_reset():
    raw = Raw()
    burst = b""
    for _ in range(1000):
        stream, frames = raw.head(request("/reset"))
        burst += frames + frame(RST, 0, stream, struct.pack(">I", 8))
    raw.send(burst)
    raw.read(lambda: raw.goaway is not None)
    raw.told()


def rapid_reset_one_by_one():
    raw = Raw()
    for _ in range(2000):
        stream, frames = raw.head(request("/sleep?seconds=60"))
        if not raw.send(frames + frame(RST, 0, stream, struct.pack(">I", 8))):
            break
    # Whether it was ended or not: what was reset does not go on.
    raw.read(lambda: raw.goaway is not None, patience=2)
    raw.told()


def continuation_flood():
    raw = Raw()
    raw.send(frame(HEADERS, 0, 1, raw.block(request("/flood"))))
    for number in range(20000):
        if not raw.send(frame(CONTINUATION, 0, 1, raw.block([(f"x-{number}", "y" * 8000)]))):
            break
        if select.select([raw.socket], [], [], 0)[0]:
            raw.read(lambda: raw.goaway is not None, patience=0.01)
            if raw.goaway is not None:
                break
    raw.read(lambda: raw.ended)
    raw.told()


def empty_continuation_flood():
    raw = Raw()
    raw.send(frame(HEADERS, 0, 1, raw.block(request("/flood"))))
    flood(raw, lambda: frame(CONTINUATION, 0, 1), 1_000_000)
    raw.told()


# Sends until it is stopped, reading what comes.
def flood(raw, make, most, at_once=1000):
    sent = 0
    while sent < most and raw.goaway is None:
        if not raw.send(b"".join(make() for _ in range(at_once))):
            break
        sent += at_once
        while raw.goaway is None and not raw.ended and select.select([raw.socket], [], [], 0)[0]:
            raw.read(patience=0.001)
    return sent


def empty_data_flood():
    raw = Raw()
    stream, frames = raw.head(request("/upload?name=flood", "POST"), flags=END_HEADERS)
    raw.send(frames)
    frames = flood(raw, lambda: frame(DATA, 0, stream), 500_000)
    raw.told(frames=frames)


def settings_flood():
    raw = Raw()
    frames = flood(raw, lambda: frame(SETTINGS, payload=struct.pack(">HI", 4, 65535)), 200_000)
    raw.told(frames=frames)


def ping_flood():
    raw = Raw()
    frames = flood(raw, lambda: frame(PING, payload=b"12345678"), 200_000)
    raw.told(frames=frames)


# Asks for answers to its PINGs and never reads them.
def ping_flood_unread():
    raw = Raw()
    raw.socket.settimeout(3)
    sent = 0
    try:
        while sent < 5_000_000:
            raw.socket.send(frame(PING, payload=b"12345678") * 1000)
            sent += 1000
    except TimeoutError:
        pass
    except OSError:
        raw.ended = True
    raw.told(frames=sent)


# Wants a hundred large answers, and takes nothing of them.
def zero_window():
    raw = Raw(struct.pack(">HI", 4, 0))
    streams = []
    for _ in range(100):
        stream, frames = raw.head(request("/bytes?n=100000000"))
        streams.append(stream)
        raw.send(frames)
    raw.read(lambda: all(raw.settled(stream) for stream in streams))
    # Windows that open by a byte, and one that overflows.
    for stream in streams:
        raw.send(frame(WINDOW, 0, stream, struct.pack(">I", 1)) * 10)
    raw.send(frame(WINDOW, 0, streams[0], struct.pack(">I", 0x7FFFFFFF)) * 2)
    raw.read(lambda: streams[0] in raw.resets or raw.ended)
    raw.told(overflow=raw.resets.get(streams[0]), statuses=sorted(set(raw.statuses.values())))


def zero_window_update():
    raw = Raw()
    stream, frames = raw.head(request("/gate?name=never"))
    raw.send(frames + frame(WINDOW, 0, stream, struct.pack(">I", 0)))
    raw.read(lambda: stream in raw.resets or raw.ended)
    raw.told(reset=raw.resets.get(stream))


def too_many_streams():
    raw = Raw()
    streams = []
    for _ in range(130):
        stream, frames = raw.head(request("/gate?name=never"))
        streams.append(stream)
        raw.send(frames)
    raw.read(lambda: raw.ended or len(raw.resets) + len(raw.statuses) >= 130)
    raw.told(opened=len(raw.statuses), refused=sorted(set(raw.resets.values())), count=len(raw.resets))


def large_header_list():
    raw = Raw()
    stream, frames = raw.head(request("/", extra=[(f"x-{number}", "y" * 1000) for number in range(70)]))
    raw.send(frames)
    raw.read(lambda: raw.settled(stream))
    good = None
    if not raw.ended:
        good, frames = raw.head(request("/good"))
        raw.send(frames)
        raw.read(lambda: raw.settled(good))
    raw.told(status=raw.statuses.get(stream), reset=raw.resets.get(stream), good=raw.statuses.get(good))


MALFORMED = {
    "two hosts": request("/bad", extra=[("host", "api"), ("host", "other")]),
    "an authority with a user": [(":method", "GET"), (":scheme", "http"), (":authority", "user@api"), (":path", "/bad")],
    "no method": [(":scheme", "http"), (":authority", "api"), (":path", "/bad")],
    "no path": [(":method", "GET"), (":scheme", "http"), (":authority", "api")],
    "no scheme": [(":method", "GET"), (":authority", "api"), (":path", "/bad")],
    "an empty path": request(""),
    "two methods": [(":method", "GET"), *request("/bad", "POST")],
    "two paths": [*request("/bad"), (":path", "/bad2")],
    "two authorities": [*request("/bad"), (":authority", "other")],
    "two schemes": [*request("/bad"), (":scheme", "https")],
    "an unknown pseudo-header": [(":foo", "bar"), *request("/bad")],
    "a pseudo-header of answers": [(":status", "200"), *request("/bad")],
    "a pseudo-header behind the others": [("x-a", "b"), *request("/bad")],
    "a protocol that was not agreed on": [*request("/bad", "CONNECT"), (":protocol", "websocket")],
    "CONNECT": [(":method", "CONNECT"), (":authority", "api:1")],
    "host and :authority differ": request("/bad", extra=[("host", "other")]),
    "an authority with a path": [(":method", "GET"), (":scheme", "http"), (":authority", "api/x"), (":path", "/bad")],
    "an uppercase name": request("/bad", extra=[("X-Upper", "a")]),
    "an uppercase Transfer-Encoding": request("/bad", extra=[("Transfer-Encoding", "chunked")]),
    "connection": request("/bad", extra=[("connection", "close")]),
    "keep-alive": request("/bad", extra=[("keep-alive", "timeout=5")]),
    "proxy-connection": request("/bad", extra=[("proxy-connection", "keep-alive")]),
    "transfer-encoding": request("/bad", "POST", [("transfer-encoding", "chunked")]),
    "upgrade": request("/bad", extra=[("upgrade", "websocket")]),
    "te: gzip": request("/bad", extra=[("te", "gzip")]),
    "te: trailers, deflate": request("/bad", extra=[("te", "trailers, deflate")]),
    "a name with a space": request("/bad", extra=[("x a", "b")]),
    "a name with a colon": request("/bad", extra=[("x:a", "b")]),
    "a name with a line break": request("/bad", extra=[("x\r\ny", "b")]),
    "an empty name": request("/bad", extra=[("", "b")]),
    "a value with a line break": request("/bad", extra=[("x", "a\r\ntransfer-encoding: chunked")]),
    "a value with LF": request("/bad", extra=[("x", "a\nb")]),
    "a value with NUL": request("/bad", extra=[("x", "a\x00b")]),
    "a path with a line break": request("/bad HTTP/1.1\r\nHost: api\r\n\r\nGET /admin"),
    "a path with a space": request("/bad /x"),
    "a path with NUL": request("/bad\x00"),
    "a method with a space": request("/bad", "GET /admin HTTP/1.1\r\n\r\nGET"),
    "a method with a line break": request("/bad", "GET\r\n"),
    "an empty method": request("/bad", ""),
    "an authority with a line break": [(":method", "GET"), (":scheme", "http"), (":authority", "api\r\nx: y"), (":path", "/bad")],
    "two unequal lengths": request("/bad", extra=[("content-length", "0"), ("content-length", "5")]),
    "a length that is no number": request("/bad", extra=[("content-length", "+0")]),
    "a length without a body": request("/bad", extra=[("content-length", "5")]),
}


# Each on a connection of its own, and a good request behind it where that still lives.
def malformed():
    told = {}
    for name, headers in MALFORMED.items():
        raw = Raw()
        stream, frames = raw.head(headers)
        raw.send(frames)
        raw.read(lambda: raw.settled(stream))
        told[name] = {"status": raw.statuses.get(stream), "reset": raw.resets.get(stream), "ended": raw.ended}
        raw.socket.close()
    # Bodies that are not as long as was said.
    for name, parts in {"a shorter body": [b"abc"], "a longer body": [b"abcdef"], "a longer body in two": [b"abcd", b"ef"]}.items():
        raw = Raw()
        stream, frames = raw.head(request("/hash", "POST", [("content-length", "5")]), flags=END_HEADERS)
        raw.send(frames)
        for number, part in enumerate(parts):
            raw.send(frame(DATA, END_STREAM if number + 1 == len(parts) else 0, stream, part))
        raw.read(lambda: raw.settled(stream))
        told[name] = {"status": raw.statuses.get(stream), "reset": raw.resets.get(stream), "ended": raw.ended}
        raw.socket.close()
    print(json.dumps(told))


def trailers_with_identity():
    raw = Raw()
    spoofs = ["x-forwarded-client-cert", "x_forwarded_client_cert", "x-postern-source", "x_postern_source", "x-sum"]
    stream, frames = raw.head(request("/trailers", "POST", [("te", "trailers"), ("trailer", ", ".join(spoofs))]), flags=END_HEADERS)
    raw.send(frames + frame(DATA, 0, stream, b"abc") + raw.head([(name, "spoof") for name in spoofs], stream=stream)[1])
    raw.read(lambda: raw.settled(stream))
    raw.told(status=raw.statuses.get(stream), reset=raw.resets.get(stream))


globals()[scenario]()
