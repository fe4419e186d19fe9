# A link between two TUN devices, "left" and "right", that holds every packet for some milliseconds. Both are made in the network
# namespace of this process; a device that is moved to another one stays open here.
import fcntl, heapq, os, select, struct, sys, time

TUNSETIFF = 0x400454CA
IFF_TUN, IFF_NO_PI = 0x0001, 0x1000

delay = float(sys.argv[1]) / 1000


def device(name):
    tun = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(tun, TUNSETIFF, struct.pack("16sH", name.encode(), IFF_TUN | IFF_NO_PI))
    return tun


left, right = device("left"), device("right")
other = {left: right, right: left}
held = []
number = 0
poll = select.poll()
poll.register(left, select.POLLIN)
poll.register(right, select.POLLIN)
print('"ready"', flush=True)
while True:
    wait = max(0.0, held[0][0] - time.monotonic()) * 1000 if held else None
    for tun, events in poll.poll(wait):
        if not events & select.POLLIN:
            time.sleep(0.005)  # the device is not up yet
            continue
        for _ in range(64):
            try:
                packet = os.read(tun, 65536)
            except OSError:
                break
            heapq.heappush(held, (time.monotonic() + delay, number, other[tun], packet))
            number += 1
    now = time.monotonic()
    while held and held[0][0] <= now:
        _, _, tun, packet = heapq.heappop(held)
        try:
            os.write(tun, packet)
        except OSError:
            pass
