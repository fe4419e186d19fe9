"""Stands before a control plane and answers for its edges and services with those of a mesh of any size, so that the page can be
looked at as it is in a large one. `page_mesh.py CONTROL SERVICES EDGES` prints its address."""

import json
import random
import sys
import threading
import time
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

PASSED_ON = ("authorization", "accept", "content-type")
VERDICTS = [("allow", 88), ("deny", 6), ("audit", 4), ("failed", 2)]


def made_edges(services, edges):
    """Callers above those that they call, some circles, and some services that everybody calls."""
    chance = random.Random(services * 31 + edges)
    names = [f"{chance.choice(['web', 'api', 'job', 'db', 'cache', 'mail'])}-{number:03}" for number in range(services)]
    layers = [chance.choice([0, 1, 1, 2, 2, 2, 3, 3, 4]) for _ in names]
    pairs = set()
    while len(pairs) < edges:
        source = chance.randrange(services)
        destination = chance.randrange(services) if chance.random() < 0.8 else chance.randrange(max(1, services // 50))
        if layers[source] < layers[destination] or chance.random() < 0.01:
            pairs.add((source, destination))
    rows = []
    for source, destination in sorted(pairs):
        verdict = chance.choices([name for name, _ in VERDICTS], [weight for _, weight in VERDICTS])[0]
        latency = {"p50_ms": chance.random() * 9, "p99_ms": 9 + chance.random() * 90}
        rate = round(chance.random() ** 4 * 900, 2)
        rows.append({
            "source": names[source], "destination": names[destination], "port": "main", "protocol": "http", "verdict": verdict,
            "because": "default (deny)" if verdict == "deny" else f"intention {names[source]} -> {names[destination]} ({verdict})",
            "count": int(rate * 600) + 1, "errors": 0, "bytes_in": 1000, "bytes_out": 10000, "rate": rate, **latency,
            "recent": {"count": int(rate * 30), "errors": 0, **latency}, "open": 1, "instances": 2,
        })
    summaries = [{"name": name, "protocol": "http", "instances": 3, "healthy": chance.choice([3, 3, 3, 3, 2, 0]), "connected": 3} for name in names]
    return rows, summaries


def timestamp(seconds):
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


class Relay(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    control, rows, summaries = "", [], []

    def log_message(self, *_):
        pass

    def do_GET(self):
        url = urlsplit(self.path)
        if url.path == "/v1/edges":
            now = time.time()
            asked = parse_qs(url.query)
            matches = lambda row: all(row[side] in asked.get(side, [row[side]]) for side in ("source", "destination"))
            seen = {"first_seen": timestamp(now - 3000), "last_seen": timestamp(now - 2)}
            edges = [{**row, **seen} for row in self.rows if matches(row)]
            self.answer(200, "application/json", json.dumps({"since": timestamp(now - 3600), "until": timestamp(now), "edges": edges}).encode())
        elif url.path == "/v1/services":
            self.answer(200, "application/json", json.dumps(self.summaries).encode())
        elif url.path == "/v1/live":
            self.answer(200, "text/event-stream", b":\n\n")
        else:
            self.pass_on()

    def pass_on(self):
        headers = {name: value for name, value in self.headers.items() if name.lower() in PASSED_ON}
        request = urllib.request.Request(f"http://{self.control}{self.path}", headers=headers)
        try:
            with urllib.request.urlopen(request) as response:
                policy = response.headers.get("content-security-policy")
                self.answer(response.status, response.headers["content-type"], response.read(), policy)
        except urllib.error.HTTPError as error:
            self.answer(error.code, "application/json", error.read())

    def answer(self, status, kind, body, policy=None):
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(body)))
        if policy:
            self.send_header("content-security-policy", policy)
        self.end_headers()
        self.wfile.write(body)


def relay(control, services, edges):
    """Its address; it runs until the process ends."""
    Relay.control = control
    Relay.rows, Relay.summaries = made_edges(services, edges)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Relay)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return f"127.0.0.1:{server.server_address[1]}"


if __name__ == "__main__":
    print(json.dumps(relay(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))), flush=True)
    threading.Event().wait()
