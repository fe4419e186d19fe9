# The files of a directory over HTTPS: DIRECTORY CHAIN KEY VERSION, the one version of TLS (TLSv1_2, TLSv1_3). Prints its port as JSON.
import functools, http.server, ssl, sys

directory, chain, key, version = sys.argv[1:]
handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=directory)
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(chain, key)
context.minimum_version = context.maximum_version = ssl.TLSVersion[version]
server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
print(server.server_address[1], flush=True)
server.serve_forever()
