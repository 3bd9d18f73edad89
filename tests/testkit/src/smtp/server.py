"""A mail server for tests: aiosmtpd, which writes each e-mail that it takes to standard output, one JSON a line.

What it does with an e-mail is asked for in the local part of the address: `refuse…` is refused for good, `later<n>…` is put off
n times and then taken, `silent…` is never answered. Everything else is taken.
"""

import asyncio
import base64
import json
import re
import ssl
import sys

from aiosmtpd.smtp import AuthResult, SMTP, LoginPassword


class Handler:
    def __init__(self):
        self.put_off = {}

    async def handle_RCPT(self, server, session, envelope, address, options):
        local = address.split("@")[0]
        if local.startswith("refuse"):
            return "550 5.1.1 there is nobody of this name here"
        if local.startswith("silent"):
            await asyncio.sleep(3600)
        if later := re.match(r"later(\d+)", local):
            tries = self.put_off[address] = self.put_off.get(address, 0) + 1
            if tries <= int(later.group(1)):
                return "451 4.7.1 come back later"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server, session, envelope):
        taken = {
            "from": envelope.mail_from,
            "to": envelope.rcpt_tos,
            "content": base64.b64encode(envelope.original_content or b"").decode(),
            "encrypted": server.transport.get_extra_info("sslcontext") is not None,
            "login": session.auth_data.decode() if session.authenticated else None,
        }
        print(json.dumps(taken), flush=True)
        return "250 taken"


def authenticator(user, password):
    def authenticate(server, session, envelope, mechanism, data):
        good = isinstance(data, LoginPassword) and (data.login.decode(), data.password.decode()) == (user, password)
        return AuthResult(success=good, handled=good, auth_data=data.login if good else None)

    return authenticate


async def main(mode, certificate, key, user, password):
    context = None
    if certificate:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(certificate, key)
    options = {"enable_SMTPUTF8": True, "hostname": "localhost"}
    if mode == "starttls":
        options |= {"tls_context": context, "require_starttls": True}
    if user:
        options |= {"authenticator": authenticator(user, password), "auth_required": True, "auth_require_tls": mode == "starttls"}
    handler = Handler()
    loop = asyncio.get_running_loop()
    wrapped = context if mode == "wrapped" else None
    server = await loop.create_server(lambda: SMTP(handler, loop=loop, **options), "127.0.0.1", int(sys.argv[6]), ssl=wrapped)
    print(json.dumps({"port": server.sockets[0].getsockname()[1]}), flush=True)
    await server.serve_forever()


asyncio.run(main(*sys.argv[1:6]))
