"""Celery's side: the task, and what sends it with an ETA.

The worker: celery -A tasks worker. Sending: tasks.py <tasks> <begin> <spread>, due `begin` (seconds since 1970) plus up to
`spread` seconds. LATE_REDIS is the broker, LATE_RAN the file that each run of the task adds a line to: due, and when it ran.
"""

import datetime
import json
import os
import random
import sys
import time

from celery import Celery

app = Celery("tasks", broker=os.environ["LATE_REDIS"])
app.conf.update(
    task_ignore_result=True,
    broker_connection_retry_on_startup=True,
    # Redis hands a task out again that was not done after this, and a worker holds its tasks until they are due: so longer than
    # the longest ETA, as Celery's documentation asks for.
    broker_transport_options={"visibility_timeout": 24 * 3600},
)

ran = os.open(os.environ["LATE_RAN"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)


@app.task
def remind(due, title):
    os.write(ran, f"{due!r} {time.time()!r}\n".encode())


if __name__ == "__main__":
    number, begin, spread = int(sys.argv[1]), float(sys.argv[2]), float(sys.argv[3])
    began = time.monotonic()
    with app.connection_for_write() as connection, app.amqp.Producer(connection) as producer:
        for _ in range(number):
            due = round(begin + random.random() * spread, 3)
            at = datetime.datetime.fromtimestamp(due, datetime.timezone.utc)
            remind.apply_async((due, "Take the bread out"), eta=at, producer=producer)
    print(json.dumps({"seconds": time.monotonic() - began}))
