#!/usr/bin/env python3
"""One URL into the bucket: ours beside its limits and its peers, all in one run on one machine.

The source is nginx on loopback, the bucket is `bowerbird store` in a process of its own, and every contender takes its turn in
each round, so that a noisy machine is noisy for all. Figures are medians over the rounds; ratios are what may be quoted.

usage: transfer.py [--size-mib 1024] [--rounds 3] [--binary target/dist/bowerbird] [--raw target/dist/bowerbird-bench]
"""

import argparse
import hashlib
import http.client
import json
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ACCESS_KEY, SECRET_KEY = "bench", "bench-secret-key-of-some-length"
MIB = 1 << 20


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for_port(port, seconds=60):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    sys.exit(f"nothing listens on port {port} after {seconds} s")


def process_tree(pid):
    """The process and all below it."""
    children = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rsplit(")", 1)[1].split()
            except OSError:
                continue
            children.setdefault(int(fields[1]), []).append(int(entry.name))
    found, todo = [], [pid]
    while todo:
        found.append(todo[-1])
        todo.extend(children.get(todo.pop(), []))
    return found


def cpu_seconds(pid, tree=False):
    """User and system time so far, children that have ended not counted."""
    total = 0
    for one in process_tree(pid) if tree else [pid]:
        try:
            fields = Path(f"/proc/{one}/stat").read_text().rsplit(")", 1)[1].split()
            total += int(fields[11]) + int(fields[12])
        except OSError:
            pass
    return total / os.sysconf("SC_CLK_TCK")


def memory_mib(pid, field="VmHWM"):
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) / 1024
    return 0.0


def reset_peak(pid):
    try:
        Path(f"/proc/{pid}/clear_refs").write_text("5")
    except OSError:
        pass


class Server:
    """A process that runs for the whole bench."""

    def __init__(self, arguments, log, env=None):
        self.log = open(log, "wb")
        self.process = subprocess.Popen(
            arguments, stdout=self.log, stderr=self.log, stdin=subprocess.DEVNULL, env={**os.environ, **(env or {})}
        )

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()


def run_client(arguments, env=None):
    """(seconds, CPU seconds, peak MiB) of a client that ends by itself."""
    begin = time.monotonic()
    child = subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env={**os.environ, **(env or {})})
    error = child.stderr.read()
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode != 0:
        raise RuntimeError(f"{arguments[0]} ended with {child.returncode}: {error.decode(errors='replace')[-400:]}")
    return time.monotonic() - begin, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


class Api:
    def __init__(self, port):
        self.port, self.token = port, None

    def ask(self, method, path, body=None, tries=20):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        headers = {"Content-Type": "application/json"} if body is not None else {}
        if self.token:
            headers["Authorization"] = f"Bearer {self.token}"
        connection.request(method, path, None if body is None else json.dumps(body), headers)
        answer = connection.getresponse()
        content = answer.read()
        connection.close()
        if answer.status == 503 and tries:
            # Busy, and says so: a database on the same disk waits for everybody's fsync.
            time.sleep(0.5)
            return self.ask(method, path, body, tries - 1)
        if answer.status >= 400:
            raise RuntimeError(f"{method} {path}: {answer.status} {content[:400]!r}")
        return json.loads(content) if content else None

    def login(self):
        account = {"account_name": "bench", "password": "a password for the bench alone"}
        try:
            self.ask("POST", "/v1/auth/register", account)
        except RuntimeError:
            pass
        self.token = None
        pair = self.ask("POST", "/v1/auth/login", {"login": "bench", "password": account["password"]})
        self.token = pair["access_token"]


def ours(api, pid, url, digest):
    """One download through the API; memory and CPU are those of the process that does it."""
    api.login()
    reset_peak(pid)
    cpu, begin = cpu_seconds(pid), time.monotonic()
    download = api.ask("POST", "/v1/downloads", {"url": url})
    while download["status"] not in ("completed", "failed", "canceled"):
        # Seldom enough not to take the time that it measures: each look costs a millisecond of this machine.
        time.sleep(0.03)
        download = api.ask("GET", f"/v1/downloads/{download['id']}")
    seconds = time.monotonic() - begin
    if download["status"] != "completed":
        raise RuntimeError(f"our download ended as {download}")
    if "sha256" in download and download["sha256"] != digest:
        raise RuntimeError("our digest is wrong")
    result = seconds, cpu_seconds(pid) - cpu, memory_mib(pid)
    api.ask("DELETE", f"/v1/downloads/{download['id']}?with_file=true")
    return result


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size-mib", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--binary", default="target/dist/bowerbird")
    parser.add_argument("--raw", default="target/dist/bowerbird-bench")
    parser.add_argument("--directory", default=None, help="where the files go; the same disk for all")
    options = parser.parse_args()
    size = options.size_mib * MIB
    work = Path(tempfile.mkdtemp(prefix="bowerbird-bench-", dir=options.directory))
    os.chmod(work, 0o755)
    servers = []
    try:
        bench(options, size, work, servers)
    finally:
        for server in reversed(servers):
            server.stop()
        shutil.rmtree(work, ignore_errors=True)


def bench(options, size, work, servers):
    web = work / "web"
    web.mkdir()
    digest = hashlib.sha256()
    with open(web / "source.bin", "wb") as file:
        for _ in range(size // MIB):
            block = os.urandom(MIB)
            digest.update(block)
            file.write(block)
    digest = digest.hexdigest()

    ports = {name: free_port() for name in ("web", "store", "api", "operations", "api2", "operations2", "unused", "unused2")}
    (work / "nginx.conf").write_text(
        f"""worker_processes 1; daemon off; pid {work}/nginx.pid; error_log {work}/nginx.log;
events {{ worker_connections 512; }}
http {{ access_log off; sendfile on; tcp_nopush on; default_type application/octet-stream;
  client_body_temp_path {work}/t1; proxy_temp_path {work}/t2; fastcgi_temp_path {work}/t3; uwsgi_temp_path {work}/t4; scgi_temp_path {work}/t5;
  server {{ listen 127.0.0.1:{ports['web']}; root {web}; }} }}
"""
    )
    nginx = shutil.which("nginx") or "/usr/sbin/nginx"
    os.chmod(web, 0o755)
    servers.append(Server([nginx, "-c", str(work / "nginx.conf"), "-g", "user root;" if os.getuid() == 0 else ""], work / "nginx.out"))
    wait_for_port(ports["web"])
    url = f"http://127.0.0.1:{ports['web']}/source.bin"

    keys = {
        "BOWERBIRD__STORAGE__ACCESS_KEY_ID": ACCESS_KEY,
        "BOWERBIRD__STORAGE__SECRET_ACCESS_KEY": SECRET_KEY,
    }
    store_at = f"127.0.0.1:{ports['store']}"
    store = Server(
        [options.binary, "store"],
        work / "store.out",
        {**keys, "BOWERBIRD__DATA_DIR": str(work / "store"), "BOWERBIRD__STORAGE__LISTEN": store_at},
    )
    servers.append(store)
    wait_for_port(ports["store"])

    houses = {}
    for name, digest_kind, api_port, operations_port, unused in (
        ("bowerbird", "sha256", "api", "operations", "unused"),
        ("bowerbird, no digest", "none", "api2", "operations2", "unused2"),
    ):
        begin = time.monotonic()
        house = Server(
            [options.binary, "up"],
            work / f"up-{digest_kind}.out",
            {
                **keys,
                "BOWERBIRD__DATA_DIR": str(work / f"data-{digest_kind}"),
                "BOWERBIRD__GATEWAY__LISTEN": f"127.0.0.1:{ports[api_port]}",
                "BOWERBIRD__GATEWAY__OPERATIONS_LISTEN": f"127.0.0.1:{ports[operations_port]}",
                "BOWERBIRD__STORAGE__LISTEN": f"127.0.0.1:{ports[unused]}",
                "BOWERBIRD__STORAGE__KIND": "s3",
                "BOWERBIRD__STORAGE__ENDPOINT": f"http://{store_at}",
                "BOWERBIRD__OUTBOUND__ALLOW": '["127.0.0.0/8"]',
                "BOWERBIRD__OUTBOUND__PORTS": "[]",
                "BOWERBIRD__DOWNLOADS__DIGEST": digest_kind,
            },
        )
        servers.append(house)
        wait_for_port(ports[api_port], 120)
        idle_end = time.monotonic()
        api = Api(ports[api_port])
        houses[name] = (api, house.process.pid)
        children = sum(memory_mib(pid, "VmRSS") for pid in process_tree(house.process.pid)[1:])
        print(f"# {name}: listening after {idle_end - begin:.1f} s with a new data directory, idle RSS {memory_mib(house.process.pid, 'VmRSS'):.0f} MiB, children {children:.0f} MiB")

    rclone_config = work / "rclone.conf"
    rclone_config.write_text(
        f"[store]\ntype = s3\nprovider = Other\naccess_key_id = {ACCESS_KEY}\nsecret_access_key = {SECRET_KEY}\n"
        f"endpoint = http://{store_at}\nforce_path_style = true\nregion = us-east-1\nno_check_bucket = true\n"
    )
    put_environment = {"BENCH_ENDPOINT": f"http://{store_at}", "BENCH_ACCESS_KEY": ACCESS_KEY, "BENCH_SECRET_KEY": SECRET_KEY}
    disk = work / "disk"
    disk.mkdir()

    def aria2(extra=()):
        for leftover in disk.iterdir():
            leftover.unlink()
        command = ["aria2c", "-q", "--no-conf", "--file-allocation=none", "-d", str(disk), "-o", "out.bin", *extra, url]
        return run_client(command)

    contenders = [
        ("curl to /dev/null (the source's limit)", False, lambda: run_client(["curl", "-sS", "-o", "/dev/null", url])),
        ("SHA-256 on one core", False, lambda: run_client([options.raw, "sha256", str(size)])),
        ("raw multipart PUT to the same store", True, lambda: run_client([options.raw, "put", str(size)], put_environment)),
    ]
    for name, (api, pid) in houses.items():
        contenders.append((name, True, lambda api=api, pid=pid: ours(api, pid, url, digest)))
    if shutil.which("aria2c"):
        contenders.append(("aria2c to disk, one connection", False, aria2))
        contenders.append(("aria2c to disk, eight connections", False, lambda: aria2(["-x8", "-s8", "-k1M"])))
        contenders.append(("aria2c to disk, checked", False, lambda: aria2([f"--checksum=sha-256={digest}"])))
    if shutil.which("rclone"):
        copy = ["rclone", "--config", str(rclone_config), "copyurl", url, "store:bowerbird/rclone/out.bin"]
        contenders.append(("rclone copyurl to the same store", True, lambda: run_client(copy, {"AWS_CA_BUNDLE": ""})))

    figures = {name: [] for name, _, _ in contenders}
    for turn in range(options.rounds):
        for name, uses_store, contender in contenders:
            before = cpu_seconds(store.process.pid)
            try:
                seconds, cpu, peak = contender()
            except (RuntimeError, OSError) as error:
                print(f"# {name}: {error}", file=sys.stderr)
                continue
            store_cpu = cpu_seconds(store.process.pid) - before if uses_store else 0.0
            figures[name].append((seconds, cpu, peak, store_cpu))
            print(f"# round {turn + 1}: {name}: {seconds:.2f} s", file=sys.stderr)

    gib = size / (1 << 30)
    print(f"\n{options.size_mib} MiB, median of {options.rounds} rounds\n")
    print("| | MB/s | CPU s/GiB | store CPU s/GiB | peak RSS MiB |")
    print("|---|---|---|---|---|")
    speeds = {}
    for name, rows in figures.items():
        if not rows:
            print(f"| {name} | failed | | | |")
            continue
        seconds, cpu, peak, store_cpu = (statistics.median(column) for column in zip(*rows))
        speeds[name] = size / 1e6 / seconds
        store_column = f"{store_cpu / gib:.2f}" if store_cpu else ""
        print(f"| {name} | {speeds[name]:.0f} | {cpu / gib:.2f} | {store_column} | {peak:.0f} |")
    limits = [name for name in ("curl to /dev/null (the source's limit)", "SHA-256 on one core", "raw multipart PUT to the same store") if name in speeds]
    if "bowerbird" in speeds and limits:
        slowest = min(limits, key=lambda name: speeds[name])
        print(f"\nbowerbird / slowest limit ({slowest}): {speeds['bowerbird'] / speeds[slowest]:.2f}")
    if "bowerbird, no digest" in speeds:
        slowest = min((name for name in limits if not name.startswith("SHA")), key=lambda name: speeds[name])
        print(f"bowerbird, no digest / slowest limit ({slowest}): {speeds['bowerbird, no digest'] / speeds[slowest]:.2f}")
    for peer in ("rclone copyurl to the same store", "aria2c to disk, checked"):
        if peer in speeds and "bowerbird" in speeds:
            print(f"bowerbird / {peer}: {speeds['bowerbird'] / speeds[peer]:.2f}")


if __name__ == "__main__":
    main()
