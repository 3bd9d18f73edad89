#!/usr/bin/env python3
"""Memory of `bowerbird up` under full load: idle, one download of 1 GiB, sixteen of 256 MiB at once.

The bound that the settings promise is downloads.memory_budget + 128 MiB for our own process (object store included).

usage: memory.py [--binary target/dist/bowerbird] [--scale 1.0]
"""

import argparse
import os
import shutil
import tempfile
import time
from pathlib import Path

from transfer import MIB, Api, Server, free_port, memory_mib, process_tree, reset_peak, wait_for_port


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", default="target/dist/bowerbird")
    parser.add_argument("--scale", type=float, default=1.0, help="of the sizes")
    options = parser.parse_args()
    work = Path(tempfile.mkdtemp(prefix="bowerbird-memory-"))
    os.chmod(work, 0o755)
    servers = []
    try:
        measure(options, work, servers)
    finally:
        for server in reversed(servers):
            server.stop()
        shutil.rmtree(work, ignore_errors=True)


def measure(options, work, servers):
    web = work / "web"
    web.mkdir()
    for name, mib in (("large", 1024), ("medium", 256)):
        with open(web / name, "wb") as file:
            for _ in range(int(mib * options.scale)):
                file.write(os.urandom(MIB))
    web_port, api_port, operations_port, store_port = (free_port() for _ in range(4))
    (work / "nginx.conf").write_text(
        f"worker_processes 1; daemon off; pid {work}/nginx.pid; error_log {work}/nginx.log; events {{ worker_connections 512; }}\n"
        f"http {{ access_log off; sendfile on; client_body_temp_path {work}/t1; proxy_temp_path {work}/t2; fastcgi_temp_path {work}/t3;"
        f" uwsgi_temp_path {work}/t4; scgi_temp_path {work}/t5; server {{ listen 127.0.0.1:{web_port}; root {web}; }} }}\n"
    )
    nginx = shutil.which("nginx") or "/usr/sbin/nginx"
    servers.append(Server([nginx, "-c", str(work / "nginx.conf"), "-g", "user root;" if os.getuid() == 0 else ""], work / "nginx.out"))
    wait_for_port(web_port)
    begin = time.monotonic()
    house = Server(
        [options.binary, "up"],
        work / "up.out",
        {
            "BOWERBIRD__DATA_DIR": str(work / "data"),
            "BOWERBIRD__GATEWAY__LISTEN": f"127.0.0.1:{api_port}",
            "BOWERBIRD__GATEWAY__OPERATIONS_LISTEN": f"127.0.0.1:{operations_port}",
            "BOWERBIRD__STORAGE__LISTEN": f"127.0.0.1:{store_port}",
            "BOWERBIRD__OUTBOUND__ALLOW": '["127.0.0.0/8"]',
            "BOWERBIRD__OUTBOUND__PORTS": "[]",
            "BOWERBIRD__DOWNLOADS__MAX_RUNNING_PER_ACCOUNT": "16",
        },
    )
    servers.append(house)
    while "Bowerbird is ready" not in (work / "up.out").read_text(errors="replace"):
        time.sleep(0.02)
        if house.process.poll() is not None or time.monotonic() - begin > 120:
            raise SystemExit((work / "up.out").read_text(errors="replace"))
    pid = house.process.pid
    print(f"ready after {time.monotonic() - begin:.1f} s, with a new data directory")
    time.sleep(3)
    print(f"idle: {memory_mib(pid, 'VmRSS'):.0f} MiB")
    for child in process_tree(pid)[1:]:
        name = Path(f"/proc/{child}/comm").read_text().strip()
        print(f"  child {name}: {memory_mib(child, 'VmRSS'):.0f} MiB")
    api = Api(api_port)
    api.login()
    for what, name, count in (("one of 1 GiB", "large", 1), ("sixteen of 256 MiB at once", "medium", 16)):
        reset_peak(pid)
        begin = time.monotonic()
        waiting = [api.ask("POST", "/v1/downloads", {"url": f"http://127.0.0.1:{web_port}/{name}"})["id"] for _ in range(count)]
        while waiting:
            time.sleep(0.1)
            download = api.ask("GET", f"/v1/downloads/{waiting[-1]}")
            if download["status"] in ("failed", "canceled"):
                raise SystemExit(f"ended as {download}")
            if download["status"] == "completed":
                waiting.pop()
        print(f"{what}: peak {memory_mib(pid):.0f} MiB, {time.monotonic() - begin:.1f} s; the bound is 256 + 128 = 384 MiB")


if __name__ == "__main__":
    main()
