"""Tells every caller what the proxy says of its certificate."""

import http.server
import signal
import sys


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        peer = self.headers.get("x-forwarded-client-cert", "nobody known")
        identity = next((part[4:] for part in peer.split(";") if part.startswith("URI=")), peer)
        body = f"called by {identity}\n".encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
http.server.ThreadingHTTPServer(("0.0.0.0", 8000), Handler).serve_forever()
