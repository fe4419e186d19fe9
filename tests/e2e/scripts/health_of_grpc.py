# grpcio's own health service, in the clear and over TLS: FILE CHAIN KEY. FILE tells how each service is, a JSON object from name
# to status, and is read again and again. Prints both addresses as a JSON list.
import json, sys, time
from concurrent import futures

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

file, chain, key = sys.argv[1:]
read = lambda path: open(path, "rb").read()
servicer = health.HealthServicer()
server = grpc.server(futures.ThreadPoolExecutor(8))
health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
plain = server.add_insecure_port("127.0.0.1:0")
secure = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([(read(key), read(chain))]))
server.start()
print(json.dumps([f"127.0.0.1:{port}" for port in (plain, secure)]), flush=True)
told = None
while True:
    text = read(file)
    if text != told:
        told = text
        for service, status in json.loads(text).items():
            servicer.set(service, health_pb2.HealthCheckResponse.ServingStatus.Value(status))
    time.sleep(0.05)
