# An endless download on a connection with other streams, until it is cut: says so, and how the others fared.
import faulthandler, json, sys

from http2 import Client

faulthandler.dump_traceback_later(120, exit=True)
client = Client(sys.argv[1])
stream = client.streams[client.request(path="/endless?name=h2&pause=0.005")]
client.until(lambda: len(stream.body) > 100_000)
print(json.dumps({"ready": True}), flush=True)
client.until(lambda: stream.ended or stream.reset is not None)
told = {"cut": stream.reset is not None or client.closed, "reset": stream.reset}
told["other"] = client.call(path="/other").status if not client.closed else None
told["again"] = client.call(path="/endless?name=again").status if not client.closed else None
print(json.dumps(told), flush=True)
