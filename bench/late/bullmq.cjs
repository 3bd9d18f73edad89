// BullMQ's side: a worker, and what puts delayed jobs in its queue.
//
// usage: node bullmq.cjs worker <port> <jobs>          says {"ready": true}, and after so many jobs [[due, ran] ...]
//        node bullmq.cjs add <port> <jobs> <begin> <spread>   due `begin` (ms since 1970) plus up to `spread` ms, by addBulk
//        node bullmq.cjs pending <port> <jobs>         half of them due within a day, the others within a year
// BULLMQ names the folder of the package.
"use strict";
const { Queue, Worker } = require(process.env.BULLMQ);

const [what, port, ...rest] = process.argv.slice(2);
const numbers = rest.map(Number);
const connection = { host: "127.0.0.1", port: Number(port), maxRetriesPerRequest: null };
const NAME = "reminders";
const BATCH = 1000;
const HOUR = 3_600_000;

async function add(jobs, due) {
  const queue = new Queue(NAME, { connection });
  await queue.waitUntilReady();
  const began = performance.now();
  for (let first = 0; first < jobs; first += BATCH) {
    const batch = [];
    for (let index = first; index < Math.min(first + BATCH, jobs); index += 1) {
      const [now, at] = [Date.now(), due(index)];
      // `delay` counts from `timestamp`, so this is due at `at` exactly.
      batch.push({ name: "remind", data: { due: at, title: "Take the bread out" }, opts: { timestamp: now, delay: at - now, removeOnComplete: true } });
    }
    await queue.addBulk(batch);
  }
  const seconds = (performance.now() - began) / 1000;
  await queue.close();
  console.log(JSON.stringify({ seconds }));
}

async function work(jobs) {
  const ran = [];
  const handle = async (job) => {
    ran.push([job.data.due, performance.timeOrigin + performance.now()]);
    if (ran.length === jobs) setTimeout(() => console.log(JSON.stringify(ran)), 500);
  };
  const worker = new Worker(NAME, handle, { connection, concurrency: 100 });
  worker.on("error", (error) => console.error(error));
  await worker.waitUntilReady();
  console.log(JSON.stringify({ ready: true }));
}

function pending(jobs) {
  const begin = Date.now() + HOUR / 2;
  return add(jobs, (index) => begin + Math.floor(Math.random() * (index % 2 ? 365 * 24 * HOUR : 23.4 * HOUR)));
}

const [first, begin, spread] = numbers;
if (what === "worker") work(first);
else if (what === "add") add(first, () => begin + Math.floor(Math.random() * spread));
else if (what === "pending") pending(first);
else throw new Error(`unknown: ${what}`);
