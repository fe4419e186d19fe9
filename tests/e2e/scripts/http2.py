# A small HTTP/2 client over one socket, which sends whatever it is told to: header names and values are not looked at.
import json, socket
from urllib.parse import urlsplit

import h2.config, h2.connection, h2.events, h2.settings


class Stream:
    def __init__(self):
        self.headers, self.body, self.trailers, self.ended, self.reset = None, b"", None, False, None

    @property
    def status(self):
        return int(dict(self.headers)[":status"]) if self.headers else None


class Client:
    def __init__(self, address, receives=True, timeout=60):
        host, port = address.rsplit(":", 1)
        self.authority, self.goaway, self.closed = address, None, False
        self.socket = socket.create_connection((host, int(port)), timeout=timeout)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        config = h2.config.H2Configuration(
            validate_outbound_headers=False, normalize_outbound_headers=False, header_encoding="latin1"
        )
        self.h2 = h2.connection.H2Connection(config)
        self.h2.initiate_connection()
        self.receives, self.streams = receives, {}
        self.flush()

    def flush(self):
        self.socket.sendall(self.h2.data_to_send())

    def head(self, method="GET", path="/", authority=None, extra=()):
        authority = self.authority if authority is None else authority
        return [(":method", method), (":scheme", "http"), (":authority", authority), (":path", path), *extra]

    def request(self, method="GET", path="/", extra=(), body=None, end=True, headers=None, authority=None):
        id = self.h2.get_next_available_stream_id()
        self.streams[id] = Stream()
        self.h2.send_headers(id, headers or self.head(method, path, authority, extra), end_stream=end and body is None)
        self.flush()
        if body is not None:
            self.send(id, body, end)
        return id

    def send(self, id, data, end=False):
        view = memoryview(data)
        while True:
            room = min(self.h2.local_flow_control_window(id), self.h2.max_outbound_frame_size, len(view))
            if room or not len(view):
                self.h2.send_data(id, bytes(view[:room]), end_stream=end and room == len(view))
                view = view[room:]
                self.flush()
                if not len(view):
                    return
            else:
                self.read()

    # One read of the socket; False when the connection is over.
    def read(self):
        try:
            data = self.socket.recv(256 * 1024)
        except ConnectionError:
            data = b""
        if not data:
            self.closed = True
            return False
        for event in self.h2.receive_data(data):
            stream = self.streams.get(getattr(event, "stream_id", None))
            if isinstance(event, h2.events.ConnectionTerminated):
                self.goaway = event.error_code
            elif stream is None:
                continue
            elif isinstance(event, h2.events.ResponseReceived):
                stream.headers = [tuple(pair) for pair in event.headers]
            elif isinstance(event, h2.events.DataReceived):
                stream.body += event.data
                if self.receives:
                    self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            elif isinstance(event, h2.events.TrailersReceived):
                stream.trailers = [tuple(pair) for pair in event.headers]
            elif isinstance(event, h2.events.StreamEnded):
                stream.ended = True
            elif isinstance(event, h2.events.StreamReset):
                stream.reset = event.error_code
        try:
            self.flush()
        except OSError:
            pass
        return True

    def until(self, condition):
        while not condition():
            if not self.read():
                return False
        return True

    # The whole answer to one request, however it ends.
    def call(self, *args, **kwargs):
        id = self.request(*args, **kwargs)
        stream = self.streams[id]
        self.until(lambda: stream.ended or stream.reset is not None)
        return stream

    def close(self):
        self.socket.close()
