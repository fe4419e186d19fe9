# Asks for every path of a file (JSON, one Latin-1 string each) over HTTP/1 and over HTTP/2, as raw as it stands: FILE ADDRESS.
# Prints the status of each: [[over HTTP/1, over HTTP/2], …]; 0 for a connection that ended, -1 for a stream that was reset.
import faulthandler, json, socket, sys

from http2 import Client

faulthandler.dump_traceback_later(200, exit=True)
paths, address = json.load(open(sys.argv[1])), sys.argv[2]
host, port = address.rsplit(":", 1)


def over_http1(path):
    with socket.create_connection((host, int(port)), timeout=30) as connection:
        try:
            connection.sendall(b"GET " + path.encode("latin1") + b" HTTP/1.1\r\nHost: api\r\nConnection: close\r\n\r\n")
            answer = b""
            while part := connection.recv(65536):
                answer += part
        except ConnectionError:
            pass
    return int(answer.split(b" ")[1]) if answer.startswith(b"HTTP/1.") else 0


client = None


def over_http2(path):
    global client
    client = Client(address) if client is None or client.closed or client.goaway is not None else client
    stream = client.call(path=path)
    return stream.status or (-1 if stream.reset is not None else 0)


print(json.dumps([[over_http1(path), over_http2(path)] for path in paths]))
