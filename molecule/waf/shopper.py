"""Sends requests as a browser would and says what became of each: shopper.py URL [FOLDER] < requests.json

FOLDER has host.crt, host.key and ca.crt for mutual TLS. The requests' keys are those of tests/data/waf/journeys.yml.
"""

import http.client
import json
import ssl
import sys
from urllib.parse import quote, urlencode, urlsplit

BROWSER = {
    "Host": "shop.nospof.test",
    "User-Agent": "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0",
    "Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
    "Accept-Language": "en-GB,en;q=0.7,de;q=0.3",
    "Accept-Encoding": "gzip, deflate, br",
}
BOUNDARY = "----geckoformboundary8f1c2d3e4f506172"


def pairs(values):
    return [(name, item) for name, value in values.items() for item in (value if isinstance(value, list) else [value])]


def multipart(fields, files):
    parts = [(f'name="{name}"', "", value) for name, value in pairs(fields)]
    for name, file in files.items():
        kind = f"Content-Type: {file['content_type']}\r\n"
        parts.append((f'name="{name}"; filename="{file["filename"]}"', kind, file["content"]))
    lines = [
        f"--{BOUNDARY}\r\nContent-Disposition: form-data; {head}\r\n{kind}\r\n{text}\r\n" for head, kind, text in parts
    ]
    return "".join(lines) + f"--{BOUNDARY}--\r\n"


def body_of(request):
    if "files" in request:
        return f"multipart/form-data; boundary={BOUNDARY}", multipart(request.get("form", {}), request["files"])
    if "form" in request:
        return "application/x-www-form-urlencoded", urlencode(pairs(request["form"]))
    if "json" in request:
        return "application/json", json.dumps(request["json"])
    return request.get("content_type"), request.get("body")


def send(connection, request):
    kind, body = body_of(request)
    path = request["path"] + ("?" + urlencode(pairs(request["query"]), quote_via=quote) if "query" in request else "")
    method = request.get("method", "GET" if body is None else "POST")
    headers = BROWSER | ({"Content-Type": kind} if kind else {}) | request.get("headers", {})
    connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
    for name, value in headers.items():
        connection.putheader(name, value)
    data = None if body is None else body.encode()
    if data is not None:
        connection.putheader("Content-Length", str(len(data)))
    connection.endheaders(data)
    answer = connection.getresponse()
    answer.read()
    return answer.status


def main():
    url, *folder = sys.argv[1:]
    target = urlsplit(url)
    if target.scheme == "https":
        context = ssl.create_default_context(cafile=f"{folder[0]}/ca.crt")
        context.load_cert_chain(f"{folder[0]}/host.crt", f"{folder[0]}/host.key")
        connection = http.client.HTTPSConnection(target.hostname, target.port, context=context, timeout=20)
    else:
        connection = http.client.HTTPConnection(target.hostname, target.port, timeout=20)
    statuses = []
    for request in json.load(sys.stdin):
        statuses.append(send(connection, request))
        connection.close()
    json.dump(statuses, sys.stdout)


main()
