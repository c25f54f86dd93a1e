"""Answers every GET with a greeting."""

import os
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from kpy_greeting import greeting


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        body = (greeting(os.environ["GREETING_NAME"]) + "\n").encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


if __name__ == "__main__":
    ThreadingHTTPServer(("", int(os.environ["PORT"])), Handler).serve_forever()
