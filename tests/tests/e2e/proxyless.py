"""A greeter that speaks xDS by gRPC's own library, server and client.

serve ADDRESS         answers until it is ended
ask TARGET NAME       prints the answer of the first server that is reached
"""

import sys
import threading
from concurrent import futures

import grpc
from grpc import experimental


def greet(request, context):
    auth = context.auth_context()
    kind = auth.get("transport_security_type", [b"none"])[0]
    names = auth.get("peer_uri", auth.get("x509_subject_alternative_name", []))
    return b"hello %s over %s as %s" % (request, kind, b",".join(names))


def serve(address):
    method = grpc.unary_unary_rpc_method_handler(greet)
    handler = grpc.method_handlers_generic_handler("test.Greeter", {"Greet": method})
    server = grpc.server(futures.ThreadPoolExecutor(4), handlers=[handler], xds=True)
    plaintext = grpc.insecure_server_credentials()
    server.add_secure_port(address, grpc.xds_server_credentials(plaintext))
    server.start()
    threading.Event().wait()


def ask(target, name):
    plaintext = experimental.insecure_channel_credentials()
    with grpc.secure_channel(target, grpc.xds_channel_credentials(plaintext)) as channel:
        greet = channel.unary_unary("/test.Greeter/Greet")
        print(greet(name.encode(), timeout=20, wait_for_ready=True).decode())


if __name__ == "__main__":
    {"serve": serve, "ask": ask}[sys.argv[1]](*sys.argv[2:])
