"""Receives Bowerbird's webhooks with the library of Standard Webhooks (pip install standardwebhooks).

    python receive_webhooks.py 8081 secrets.txt

The file holds the secret that `POST /v1/webhooks` answered, `whsec_...`; during a rotation both, one per line. It is read
for each message, so that a rotation needs no restart.
"""

import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from standardwebhooks.webhooks import Webhook, WebhookVerificationError

LONGEST_BODY = 1 << 20
seen: set[str] = set()


def verified(body: bytes, headers: dict[str, str], secrets: list[str]) -> dict | None:
    """The message, if one of the secrets fits and it is not older than five minutes."""
    for secret in secrets:
        try:
            return Webhook(secret).verify(body, headers)
        except WebhookVerificationError:
            continue
    return None


class Receiver(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        length = int(self.headers.get("content-length", 0))
        # The bytes as they came: parsing and writing them again would break the signature.
        body = self.rfile.read(min(length, LONGEST_BODY))
        headers = {name.lower(): value for name, value in self.headers.items()}
        message = verified(body, headers, Path(sys.argv[2]).read_text().split())
        if message is None:
            self.answer(400)
            print("refused", flush=True)
            return
        # The same id means the same message: it comes again when the answer got lost.
        again = headers["webhook-id"] in seen
        seen.add(headers["webhook-id"])
        self.answer(204)
        print("again" if again else "verified", message["type"], headers["webhook-id"], flush=True)

    def answer(self, status: int) -> None:
        self.send_response(status)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


if __name__ == "__main__":
    ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Receiver).serve_forever()
