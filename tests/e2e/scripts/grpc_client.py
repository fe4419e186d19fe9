# Clients of grpc_service.py by grpcio: SCENARIO ADDRESS [ARGUMENT]. Ends with 0 when everything was as it should be.
import faulthandler, hashlib, json, queue, sys, threading, time

import grpc

faulthandler.dump_traceback_later(180, exit=True)
scenario, address, arguments = sys.argv[1], sys.argv[2], sys.argv[3:]
unlimited = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
channel = grpc.insecure_channel(address, options=unlimited)
block = hashlib.shake_256(b"postern").digest(256 * 1024)
BULK = 100 << 20


def of(kind, method, channel=channel):
    return getattr(channel, kind)(f"/pkg.Service/{method}")


def unary(method, channel=channel):
    return of("unary_unary", method, channel)


# What grpcio raises, as (status, message).
def failure(call):
    try:
        call()
    except grpc.RpcError as error:
        return error
    raise AssertionError("the call went through")


def say(**what):
    print(json.dumps(what), flush=True)


# A stream of requests that grows by hand.
class Growing:
    def __init__(self):
        self.queue = queue.Queue()

    def __iter__(self):
        return self

    def __next__(self):
        item = self.queue.get()
        if item is None:
            raise StopIteration
        return item

    def put(self, item):
        self.queue.put(item)


def every_kind_of_call():
    every_kind_but_server()
    assert list(of("unary_stream", "Server")(b"%d" % (len(block) * 5), timeout=30)) == [block] * 5
    assert list(of("unary_stream", "Server")(b"0", timeout=30)) == []


def every_kind_but_server():
    assert unary("Unary")(b"hello", timeout=30) == b"hello"
    assert unary("Unary")(b"", timeout=30) == b""
    assert unary("Unary")(block * 40, timeout=60) == block * 40
    digest = hashlib.sha256(block * 3).hexdigest()
    assert of("stream_unary", "Client")(iter([block] * 3), timeout=30) == f"{3 * len(block)} {digest}".encode()
    assert of("stream_unary", "Client")(iter([]), timeout=30).startswith(b"0 ")
    requests = Growing()
    answers = of("stream_stream", "Both")(requests, timeout=30)
    # Each answer comes before the next request is made.
    for number in range(100):
        requests.put(b"%d" % number)
        assert next(answers) == b"%d" % number
    requests.put(None)
    assert list(answers) == [] and answers.code() == grpc.StatusCode.OK


def bulk():
    expected = hashlib.sha256()
    for _ in range(BULK // len(block)):
        expected.update(block)
    up = of("stream_unary", "Client")((block for _ in range(BULK // len(block))), timeout=170)
    assert up == f"{BULK} {expected.hexdigest()}".encode()
    down = hashlib.sha256()
    for part in of("unary_stream", "Server")(b"%d" % BULK, timeout=170):
        down.update(part)
    assert down.digest() == expected.digest()
    both, count = hashlib.sha256(), 0
    for part in of("stream_stream", "Both")((block for _ in range(BULK // len(block))), timeout=170):
        both.update(part)
    assert both.digest() == expected.digest()


def deadlines():
    begun = time.monotonic()
    error = failure(lambda: unary("Wait")(b"", timeout=0.5))
    assert error.code() == grpc.StatusCode.DEADLINE_EXCEEDED and time.monotonic() - begun < 20
    ticks = of("unary_stream", "Ticks")(b"", timeout=1)
    error = failure(lambda: list(ticks))
    assert error.code() == grpc.StatusCode.DEADLINE_EXCEEDED


def cancellation():
    call = unary("Wait").future(b"", timeout=60)
    ticks = of("unary_stream", "Ticks")(b"", timeout=60)
    assert next(ticks) == b"0" and next(ticks) == b"1"
    ticks.cancel()
    say(ready=True)
    time.sleep(0.2)
    call.cancel()
    assert call.cancelled() and ticks.code() == grpc.StatusCode.CANCELLED
    # The connection goes on.
    assert unary("Unary")(b"after", timeout=30) == b"after"


def metadata():
    sent = (("m-text", "plain; =,"), ("m-many", "1"), ("m-many", "2"), ("m-blob-bin", bytes(range(256))), ("m-empty-bin", b""))
    answer, call = unary("Metadata").with_call(b"x", metadata=sent, timeout=30)
    assert sorted(m for m in call.initial_metadata() if m[0].startswith("m-")) == sorted(sent), call.initial_metadata()
    trailing = sorted(m for m in call.trailing_metadata() if m[0].startswith("t-"))
    assert trailing == sorted((f"t-{key}", value) for key, value in sent), trailing
    # As much as a client of gRPC sends at most by itself.
    large = (("m-large", "x" * 6000),)
    answer, call = unary("Metadata").with_call(b"x", metadata=large, timeout=30)
    assert [m for m in call.initial_metadata() if m[0].startswith("m-")] == list(large)


def failures():
    for code in grpc.StatusCode:
        if code in (grpc.StatusCode.OK,):
            continue
        message = f"because of {code.name}: ü % \n \U0001f512"
        error = failure(lambda: unary("Fail")(f"{code.name} {message}".encode(), timeout=30))
        assert error.code() == code and error.details() == message, (error.code(), error.details())
        assert ("x-why-bin", b"\x00\xff\x80") in error.trailing_metadata()
    parts = []

    def read():
        for part in of("unary_stream", "FailLate")(b"", timeout=30):
            parts.append(part)

    error = failure(read)
    assert parts == [b"one", b"two"] and error.code() == grpc.StatusCode.DATA_LOSS and error.details() == "after two"
    error = failure(lambda: unary("Nothing")(b"", timeout=30))
    assert error.code() == grpc.StatusCode.UNIMPLEMENTED, error


def denied(method):
    error = failure(lambda: unary(method)(b"", timeout=30))
    say(code=error.code().name, details=error.details())


def denied_kinds():
    for call in (
        lambda: of("stream_unary", "Client")(iter([block] * 3), timeout=30),
        lambda: list(of("unary_stream", "Server")(b"1", timeout=30)),
        lambda: list(of("stream_stream", "Both")(iter([b"x"] * 3), timeout=30)),
    ):
        error = failure(call)
        assert error.code() == grpc.StatusCode.PERMISSION_DENIED, error
    say(code="PERMISSION_DENIED")


# A call takes as long as it is delayed, and one whose deadline is shorter meets it.
def delayed():
    begun, delay = time.monotonic(), float(arguments[0])
    assert unary("Unary")(b"hello", timeout=60) == b"hello" and time.monotonic() - begun >= delay
    error = failure(lambda: unary("Unary")(b"hello", timeout=delay / 2))
    assert error.code() == grpc.StatusCode.DEADLINE_EXCEEDED, error


# More streams on one channel than a connection between sidecars has, each of which lives beside all others.
def many_streams():
    streams = []
    for number in range(int(arguments[0])):
        requests = Growing()
        streams.append((requests, of("stream_stream", "Both")(requests, timeout=120)))
    for turn in range(3):
        for number, (requests, _) in enumerate(streams):
            requests.put(b"%d %d" % (turn, number))
        for number, (_, answers) in enumerate(streams):
            assert next(answers) == b"%d %d" % (turn, number)
    for requests, answers in streams:
        requests.put(None)
        assert list(answers) == []


def many_channels():
    def talk(number):
        options = unlimited + [("grpc.use_local_subchannel_pool", 1)]
        with grpc.insecure_channel(address, options=options) as own:
            for turn in range(50):
                text = b"%d %d" % (number, turn)
                assert unary("Unary", own)(text, timeout=60) == text
        done.append(number)

    done = []
    threads = [threading.Thread(target=talk, args=(number,)) for number in range(16)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert len(done) == 16


# Streams of Both and of Other on one channel, until Both ends; says how, and that Other goes on. A line of standard input
# is waited for before the last words.
def live():
    both, other = Growing(), Growing()
    on_both, on_other = of("stream_stream", "Both")(both, timeout=120), of("stream_stream", "Other")(other, timeout=120)
    ticks = of("unary_stream", "Ticks")(b"", timeout=120)
    for number in range(3):
        both.put(b"x")
        other.put(b"x")
        assert next(on_both) == b"x" and next(on_other) == b"x" and next(ticks)
    say(ready=True)
    error = failure(lambda: next(on_both))
    say(code=error.code().name, details=error.details())
    for number in range(3):
        other.put(b"y")
        assert next(on_other) == b"y" and next(ticks)
    error = failure(lambda: list(of("stream_stream", "Both")(iter([b"x"]), timeout=30)))
    say(code=error.code().name, details=error.details())
    other.put(None)
    assert list(on_other) == [] and on_other.code() == grpc.StatusCode.OK
    ticks.cancel()


# Ticks until the stream is ended from afar.
def ticks():
    stream = of("unary_stream", "Ticks")(b"", timeout=120)
    assert next(stream) == b"0"
    say(ready=True)
    error = failure(lambda: list(stream))
    say(code=error.code().name, details=error.details())


# For each line of standard input: a stream of Both, until it is ended from afar. Says when and how it ended, and whether one of
# Other on the same connection goes on.
def ends():
    other = Growing()
    on_other = of("stream_stream", "Other")(other)
    for _ in range(int(arguments[0])):
        sys.stdin.readline()
        both = Growing()
        on_both = of("stream_stream", "Both")(both)
        both.put(b"x")
        assert next(on_both) == b"x"
        say(ready=True)
        error = failure(lambda: next(on_both))
        at = time.time()
        other.put(b"y")
        say(at=at, code=error.code().name, other_goes_on=next(on_other) == b"y")
        both.put(None)


def headers():
    pairs = [pair.split("=", 1) for pair in arguments]
    answer = unary("Headers")(b"", metadata=[(key, value) for key, value in pairs], timeout=30)
    print(answer.decode())


if scenario in ("denied",):
    denied(*arguments)
else:
    globals()[scenario]()
