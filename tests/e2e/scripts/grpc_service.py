# A gRPC service by grpcio whose messages are bytes. Prints its address as a JSON string; what happens is a line of JSON in the
# file named by the first argument.
import hashlib, json, sys, threading, time
from concurrent import futures

import grpc

log, lock = open(sys.argv[1], "a"), threading.Lock()
block = hashlib.shake_256(b"postern").digest(256 * 1024)


def note(method, event, **more):
    with lock:
        print(json.dumps({"method": method, "event": event, **more}), file=log, flush=True)


def begin(method, context):
    metadata = [[key, value.hex() if isinstance(value, bytes) else value] for key, value in context.invocation_metadata()]
    note(method, "begun", metadata=metadata)
    context.add_callback(lambda: note(method, "over", left=context.time_remaining()))


def unary(request, context):
    begin("Unary", context)
    return request


def client_stream(requests, context):
    begin("Client", context)
    digest, count = hashlib.sha256(), 0
    for request in requests:
        digest.update(request)
        count += len(request)
    return f"{count} {digest.hexdigest()}".encode()


def server_stream(request, context):
    begin("Server", context)
    for _ in range(int(request) // len(block)):
        yield block


def both(requests, context):
    begin("Both", context)
    count = 0
    try:
        for request in requests:
            count += 1
            yield request
    finally:
        note("Both", "ended", count=count)


# Sends a number each tenth of a second until nobody listens.
def ticks(request, context):
    begin("Ticks", context)
    number = 0
    while context.is_active():
        yield b"%d" % number
        number += 1
        time.sleep(0.1)


def wait(request, context):
    begin("Wait", context)
    while context.is_active():
        time.sleep(0.02)
    note("Wait", "cancelled")
    return b""


def metadata(request, context):
    begin("Metadata", context)
    sent = [(key, value) for key, value in context.invocation_metadata() if key.startswith("m-")]
    context.send_initial_metadata(tuple(sent))
    context.set_trailing_metadata(tuple((f"t-{key}", value) for key, value in sent))
    return request


def fail(request, context):
    begin("Fail", context)
    code, message = request.decode().split(" ", 1)
    context.set_trailing_metadata((("x-why-bin", b"\x00\xff\x80"),))
    context.abort(getattr(grpc.StatusCode, code), message)


def fail_late(request, context):
    begin("FailLate", context)
    for part in (b"one", b"two"):
        yield part
    context.abort(grpc.StatusCode.DATA_LOSS, "after two")


def headers(request, context):
    begin("Headers", context)
    sent = [[key, value if isinstance(value, str) else value.hex()] for key, value in context.invocation_metadata()]
    return json.dumps(sent).encode()


handlers = {
    "Unary": grpc.unary_unary_rpc_method_handler(unary),
    "Client": grpc.stream_unary_rpc_method_handler(client_stream),
    "Server": grpc.unary_stream_rpc_method_handler(server_stream),
    "Both": grpc.stream_stream_rpc_method_handler(both),
    "Other": grpc.stream_stream_rpc_method_handler(both),
    "Ticks": grpc.unary_stream_rpc_method_handler(ticks),
    "Wait": grpc.unary_unary_rpc_method_handler(wait),
    "Metadata": grpc.unary_unary_rpc_method_handler(metadata),
    "Fail": grpc.unary_unary_rpc_method_handler(fail),
    "FailLate": grpc.unary_stream_rpc_method_handler(fail_late),
    "Headers": grpc.unary_unary_rpc_method_handler(headers),
}
unlimited = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
server = grpc.server(futures.ThreadPoolExecutor(400), options=unlimited)
server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("pkg.Service", handlers),))
port = server.add_insecure_port("127.0.0.1:0")
server.start()
print('"127.0.0.1:%d"' % port, flush=True)
server.wait_for_termination()
