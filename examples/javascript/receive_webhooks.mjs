// Receives Bowerbird's webhooks with the library of Standard Webhooks (npm install standardwebhooks).
//
//     node receive_webhooks.mjs 8081 secrets.txt
//
// The file holds the secret that `POST /v1/webhooks` answered, `whsec_...`; during a rotation both, one per line. It is read
// for each message, so that a rotation needs no restart.

import { readFileSync } from "node:fs";
import { createServer } from "node:http";
import { Webhook } from "standardwebhooks";

const LONGEST_BODY = 1 << 20;
const [port, secrets] = process.argv.slice(2);
const seen = new Set();

// The message, if one of the secrets fits and it is not older than five minutes.
function verified(body, headers) {
  for (const secret of readFileSync(secrets, "utf8").split(/\s+/).filter(Boolean)) {
    try {
      return new Webhook(secret).verify(body, headers);
    } catch {
      // Maybe the next one.
    }
  }
  return undefined;
}

createServer((request, response) => {
  const chunks = [];
  let length = 0;
  request.on("data", (chunk) => {
    length += chunk.length;
    if (length > LONGEST_BODY) request.destroy();
    chunks.push(chunk);
  });
  request.on("end", () => {
    // The text as it came: parsing and writing it again would break the signature.
    const message = verified(Buffer.concat(chunks).toString("utf8"), request.headers);
    if (message === undefined) {
      response.writeHead(400).end();
      console.log("refused");
      return;
    }
    // The same id means the same message: it comes again when the answer got lost.
    const id = request.headers["webhook-id"];
    const again = seen.has(id);
    seen.add(id);
    response.writeHead(204).end();
    console.log(again ? "again" : "verified", message.type, id);
  });
}).listen(Number(port), "127.0.0.1");
