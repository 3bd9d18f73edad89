#!/usr/bin/env python3
"""The embedded object store beside the disk it writes to and beside nginx.

PUT: one object of 1 GiB by multipart, parts of 8 MiB, each fsynced before its answer, four at once; beside
`dd conv=fdatasync` of as many bytes to the same disk. GET: the same object by presigned link, beside nginx serving a file
of the same size from the same disk, both to `curl` into /dev/null. In turns, medians; ratios are what may be quoted.

usage: store.py [--binary target/dist/bowerbird] [--raw target/dist/bowerbird-bench] [--size-mib 1024] [--rounds 5]
"""

import argparse
import datetime
import hashlib
import hmac
import os
import shutil
import statistics
import tempfile
import urllib.parse
from pathlib import Path

from transfer import ACCESS_KEY, MIB, SECRET_KEY, Server, cpu_seconds, free_port, memory_mib, run_client, wait_for_port


def presigned(endpoint, path):
    """A link to GET an object, valid for an hour (AWS Signature Version 4)."""
    now = datetime.datetime.now(datetime.timezone.utc).strftime("%Y%m%dT%H%M%SZ")
    scope = f"{now[:8]}/us-east-1/s3/aws4_request"
    query = urllib.parse.urlencode(
        sorted(
            {
                "X-Amz-Algorithm": "AWS4-HMAC-SHA256",
                "X-Amz-Credential": f"{ACCESS_KEY}/{scope}",
                "X-Amz-Date": now,
                "X-Amz-Expires": "3600",
                "X-Amz-SignedHeaders": "host",
            }.items()
        ),
        quote_via=urllib.parse.quote,
    )
    request = f"GET\n{path}\n{query}\nhost:{endpoint}\n\nhost\nUNSIGNED-PAYLOAD"
    to_sign = f"AWS4-HMAC-SHA256\n{now}\n{scope}\n{hashlib.sha256(request.encode()).hexdigest()}"
    key = f"AWS4{SECRET_KEY}".encode()
    for step in (*scope.split("/"), to_sign):
        key = hmac.new(key, step.encode(), hashlib.sha256).digest()
    return f"http://{endpoint}{path}?{query}&X-Amz-Signature={key.hex()}"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", default="target/dist/bowerbird")
    parser.add_argument("--raw", default="target/dist/bowerbird-bench")
    parser.add_argument("--size-mib", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    work = Path(tempfile.mkdtemp(prefix="bowerbird-store-"))
    os.chmod(work, 0o755)
    servers = []
    try:
        bench(options, options.size_mib * MIB, work, servers)
    finally:
        for server in reversed(servers):
            server.stop()
        shutil.rmtree(work, ignore_errors=True)


def bench(options, size, work, servers):
    web, memory = work / "web", Path("/dev/shm") if os.access("/dev/shm", os.W_OK) else work
    web.mkdir()
    source = Path(tempfile.mkstemp(prefix="bowerbird-store-", dir=memory)[1])
    try:
        with open(source, "wb") as file:
            for _ in range(size // MIB):
                file.write(os.urandom(MIB))
        shutil.copy(source, web / "source.bin")
        os.chmod(web / "source.bin", 0o644)
        web_port, store_port = free_port(), free_port()
        (work / "nginx.conf").write_text(
            f"worker_processes 1; daemon off; pid {work}/nginx.pid; error_log {work}/nginx.log; events {{ worker_connections 512; }}\n"
            f"http {{ access_log off; sendfile on; tcp_nopush on; client_body_temp_path {work}/t1; proxy_temp_path {work}/t2; fastcgi_temp_path {work}/t3;"
            f" uwsgi_temp_path {work}/t4; scgi_temp_path {work}/t5; server {{ listen 127.0.0.1:{web_port}; root {web}; }} }}\n"
        )
        nginx = shutil.which("nginx") or "/usr/sbin/nginx"
        servers.append(Server([nginx, "-c", str(work / "nginx.conf"), "-g", "user root;" if os.getuid() == 0 else ""], work / "nginx.out"))
        endpoint = f"127.0.0.1:{store_port}"
        store = Server(
            [options.binary, "store"],
            work / "store.out",
            {
                "BOWERBIRD__STORAGE__ACCESS_KEY_ID": ACCESS_KEY,
                "BOWERBIRD__STORAGE__SECRET_ACCESS_KEY": SECRET_KEY,
                "BOWERBIRD__DATA_DIR": str(work / "store"),
                "BOWERBIRD__STORAGE__LISTEN": endpoint,
            },
        )
        servers.append(store)
        wait_for_port(web_port)
        wait_for_port(store_port)
        raw_environment = {"BENCH_ENDPOINT": f"http://{endpoint}", "BENCH_ACCESS_KEY": ACCESS_KEY, "BENCH_SECRET_KEY": SECRET_KEY, "BENCH_KEEP": "1"}
        curl = ["curl", "--silent", "--show-error", "--fail", "--output", "/dev/null"]
        contenders = {
            "dd conv=fdatasync": lambda: run_client(["dd", f"if={source}", f"of={work}/dd", "bs=1M", "conv=fdatasync"]),
            "multipart PUT": lambda: run_client([options.raw, "put", str(size)], raw_environment),
            "nginx to curl": lambda: run_client([*curl, f"http://127.0.0.1:{web_port}/source.bin"]),
            "GET to curl": lambda: run_client([*curl, presigned(endpoint, "/bowerbird/bench/raw-put")]),
        }
        took = {name: [] for name in contenders}
        for number in range(1, options.rounds + 1):
            for name, contender in contenders.items():
                before = cpu_seconds(store.process.pid)
                seconds, _, _ = contender()
                took[name].append((seconds, cpu_seconds(store.process.pid) - before))
                print(f"# round {number}: {name}: {seconds:.2f} s", flush=True)
            (work / "dd").unlink()
        rate = {name: size / 1e6 / statistics.median(seconds for seconds, _ in times) for name, times in took.items()}
        print(f"\n{options.size_mib} MiB, median of {options.rounds} rounds\n\n| | MB/s | store CPU s/GiB |\n|---|---|---|")
        for name, times in took.items():
            cpu = statistics.median(cpu for _, cpu in times) * 1024 / options.size_mib
            print(f"| {name} | {rate[name]:.0f} | {f'{cpu:.2f}' if cpu > 0.02 else ''} |")
        print(f"\nstore, multipart PUT / dd: {rate['multipart PUT'] / rate['dd conv=fdatasync']:.2f}")
        print(f"store, GET / nginx: {rate['GET to curl'] / rate['nginx to curl']:.2f}")
        print(f"store, peak RSS: {memory_mib(store.process.pid):.0f} MiB")
    finally:
        source.unlink(missing_ok=True)


if __name__ == "__main__":
    main()
