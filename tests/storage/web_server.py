#!/usr/bin/env python3
"""A web server for tests: parts of files, and the ways in which a server can be difficult.

    web_server.py FOLDER PORT [--certificate FILE] [--no-ranges] [--password USER:PASSWORD] [--cookie TEXT] [--redirect URL]

PORT 0 is any free one; the port is printed. Every request is a line on stdout.
"""

import argparse
import base64
import http.server
import os
import re
import ssl

parser = argparse.ArgumentParser()
parser.add_argument("folder")
parser.add_argument("port", type=int)
parser.add_argument("--certificate")
parser.add_argument("--no-ranges", action="store_true")
parser.add_argument("--password")
parser.add_argument("--cookie")
parser.add_argument("--redirect")
options = parser.parse_args()


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def refuse(self, code, *headers):
        self.send_response(code)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def answer(self, with_body):
        path = os.path.join(options.folder, self.path.lstrip("/"))
        if options.redirect:
            return self.refuse(302, ("Location", options.redirect + self.path))
        if options.password:
            wanted = "Basic " + base64.b64encode(options.password.encode()).decode()
            if self.headers.get("Authorization") != wanted:
                return self.refuse(401, ("WWW-Authenticate", 'Basic realm="test"'))
        if options.cookie and self.headers.get("Cookie") != options.cookie:
            return self.refuse(403)
        if not os.path.isfile(path):
            return self.refuse(404)
        size = os.path.getsize(path)
        first, last = 0, size - 1
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if wanted and not options.no_ranges:
            first, last = int(wanted[1]), min(int(wanted[2] or last), last)
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {first}-{last}/{size}")
        else:
            self.send_response(200)
        if not options.no_ranges:
            self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(last - first + 1))
        self.end_headers()
        if with_body:
            with open(path, "rb") as file:
                file.seek(first)
                self.wfile.write(file.read(last - first + 1))

    def do_HEAD(self):
        self.answer(False)

    def do_GET(self):
        self.answer(True)


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, *_):
        pass  # clients that go away


server = Server(("127.0.0.1", options.port), Handler)
if options.certificate:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(options.certificate)
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
print(server.server_address[1], flush=True)
server.serve_forever()
