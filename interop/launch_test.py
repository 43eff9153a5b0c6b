"""Launches vineyardd with the package's own functions, beyond what its tests do.

Run by run.py in a copy of the package whose vineyardd is the daemon under test:
V6D_INTEROP_EXE is the program that must turn out to run.
"""

import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np

import vineyard
from vineyard.deploy.local import start_vineyardd
from vineyard.deploy.utils import find_port, find_vineyardd_path


def check_program(process):
    """The process is the program under test, not another vineyardd of this machine."""
    assert os.path.realpath(f"/proc/{process.pid}/exe") == os.environ["V6D_INTEROP_EXE"]


def test_package_finds_it():
    assert os.path.realpath(find_vineyardd_path()) == os.environ["V6D_INTEROP_EXE"]


def test_local_metadata_and_rpc():
    local = start_vineyardd(meta="local", size="64Mi", rpc_socket_port=find_port())
    with local as (process, ipc, _):
        check_program(process)
        client = vineyard.connect(ipc)
        array = np.arange(1000)
        name = client.put(array, name="launched", persist=True)
        remote = vineyard.connect(endpoint=("localhost", client.rpc_endpoint.split(":")[1]))
        np.testing.assert_equal(remote.get(name), array)
        assert remote.get_name("launched") == name
        assert client.status.memory_limit == 64 << 20


def test_program_of_the_path():
    path = shutil.which("vineyardd")
    with start_vineyardd(meta="local", rpc=False, vineyardd_path=path) as (process, ipc, _):
        check_program(process)
        client = vineyard.connect(ipc)
        assert client.get(client.put((1, 2))) == (1, 2)
        assert client.status.memory_limit > 0


def test_two_on_an_etcd_of_the_package():
    """The package starts etcd and a daemon; a second one joins with the same prefix."""
    first = start_vineyardd(size="64Mi", etcd_prefix="launch", rpc_socket_port=find_port())
    with first as (process, ipc, etcd):
        check_program(process)
        second = start_vineyardd(size="64Mi", etcd_prefix="launch", etcd_endpoints=etcd,
                                 rpc_socket_port=find_port())
        with second as (_, other, _):
            one, two = vineyard.connect(ipc), vineyard.connect(other)
            assert one.instance_id != two.instance_id
            assert len(two.meta) == 2
            id_ = one.put(np.arange(10), name="shared", persist=True)
            assert two.get_name("shared") == id_
            np.testing.assert_equal(two.get(id_), np.arange(10))


def test_an_etcd_that_the_daemon_starts():
    """Nobody answers at the endpoint: the daemon runs etcd there."""
    endpoint = f"http://127.0.0.1:{find_port()}"
    with start_vineyardd(size="64Mi", etcd_endpoints=endpoint, etcd_prefix="own",
                         rpc_socket_port=find_port()) as (process, ipc, _):
        check_program(process)
        client = vineyard.connect(ipc)
        id_ = client.put("own etcd", name="own", persist=True)
        assert client.get(client.get_name("own")) == "own etcd"
        assert client.get_name("own") == id_


def test_ends_at_sigterm():
    with start_vineyardd(meta="local", rpc=False, size="64Mi") as (process, ipc, _):
        client = vineyard.connect(ipc)
        client.put(np.zeros(100))
        began = time.monotonic()
        process.send_signal(signal.SIGTERM)
        process.wait(10)
        assert time.monotonic() - began < 5


def test_module():
    """python -m vineyard.deploy starts it, too."""
    done = subprocess.run([sys.executable, "-m", "vineyard.deploy", "--version"], timeout=120,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert done.returncode == 0, done.stdout
    assert "vineyardd version 0.24.2" in done.stdout
