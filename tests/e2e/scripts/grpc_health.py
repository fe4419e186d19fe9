# The health service of gRPC by grpcio (grpc.health.v1), without and with TLS: "" and "up" serve, "down" does not, nothing else
# is known. Prints both addresses as JSON. Usage: grpc_health.py CERTIFICATE KEY
import json, sys
from concurrent import futures

import grpc

STATUS = {b"": b"\x08\x01", b"\x0a\x02up": b"\x08\x01", b"\x0a\x04down": b"\x08\x02"}


def check(request, context):
    if request not in STATUS:
        context.abort(grpc.StatusCode.NOT_FOUND, "unknown service")
    return STATUS[request]


handlers = grpc.method_handlers_generic_handler("grpc.health.v1.Health", {"Check": grpc.unary_unary_rpc_method_handler(check)})
server = grpc.server(futures.ThreadPoolExecutor(4))
server.add_generic_rpc_handlers((handlers,))
plain = server.add_insecure_port("127.0.0.1:0")
certificate, key = (open(path, "rb").read() for path in sys.argv[1:3])
tls = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([(key, certificate)]))
server.start()
print(json.dumps({"plain": f"127.0.0.1:{plain}", "tls": f"127.0.0.1:{tls}"}), flush=True)
server.wait_for_termination()
