"""A real Slurm of one node on this machine's loopback, in a folder of its own, without accounting.

Two partitions share the node; a job of ``urgent`` pre-empts those of ``main``, which are warned, then requeued.
"""

import os
import shutil
import socket
import subprocess
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch")
CPUS = 4
CONF = """
ClusterName=dmseg
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket={folder}/munge.socket
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmdParameters=config_overrides
ReturnToService=2
KillWait=20
MinJobAge=300
JobCompType=jobcomp/filetxt
JobCompLoc={folder}/jobs.txt
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SchedulerParameters=sched_interval=2,batch_sched_delay=0
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} State=UNKNOWN
PartitionName=main Nodes={host} Default=YES MaxTime=INFINITE State=UP PriorityTier=1 GraceTime={grace}
PartitionName=urgent Nodes={host} MaxTime=INFINITE State=UP PriorityTier=2
"""


def install():
    """Installs Slurm where it is missing; skips with the reason where that cannot be."""
    if all(shutil.which(name) for name in PROGRAMS):
        return
    if os.getuid() != 0 or not shutil.which("apt-get"):
        pytest.skip("Slurm is not installed, and only root can install it, with apt-get")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for words in (["update"], ["install", "-y", "--no-install-recommends", "slurm-wlm", "munge"]):
        done = subprocess.run(["apt-get", "-qq", *words], env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"Slurm cannot be installed: apt-get {words[0]}: {done.stderr.strip().splitlines()[-1:]}")


def free_ports(count):
    listening = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in listening]
    for one in listening:
        one.close()
    return ports


@contextmanager
def one_node_slurm(folder: Path, grace=15):
    """Starts the daemons, and stops them at the end; commands find them by SLURM_CONF."""
    install()
    if os.getuid() != 0:
        pytest.skip("the daemons of Slurm need root to start jobs")
    for name in ("state", "spool"):
        (folder / name).mkdir(parents=True)
    (folder / "munge.key").write_bytes(os.urandom(128))
    (folder / "munge.key").chmod(0o400)
    host = socket.gethostname().split(".")[0]
    conf = folder / "slurm.conf"
    conf.write_text(CONF.format(host=host, folder=folder, ports=free_ports(2), cpus=CPUS, grace=grace))
    environment = {**os.environ, "SLURM_CONF": str(conf)}
    munged = [
        "munged", "--foreground", "--force", f"--socket={folder}/munge.socket", f"--key-file={folder}/munge.key",
        f"--pid-file={folder}/munged.pid", f"--log-file={folder}/munged.log", f"--seed-file={folder}/munged.seed",
    ]  # fmt: skip
    daemons = []
    try:
        for words in (munged, ["slurmctld", "-D"], ["slurmd", "-D", "-N", host]):
            with (folder / f"{words[0]}.out").open("w") as out:
                daemons.append(subprocess.Popen(words, env=environment, stdout=out, stderr=out, cwd=folder))
            time.sleep(1)
        wait_for(lambda: "idle" in run("sinfo", "-h", "-o", "%t", env=environment), 60, lambda: logs(folder))
        yield environment
    finally:
        subprocess.run(["scancel", "--user=root"], env=environment, check=False, capture_output=True)
        for daemon in reversed(daemons):
            daemon.terminate()
            try:
                daemon.wait(30)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()


def run(*words, env):
    return subprocess.run(words, env=env, capture_output=True, text=True, check=False, timeout=60).stdout


def logs(folder):
    return "\n".join(f"{path.name}: {path.read_text()[-1500:]}" for path in folder.glob("*.log"))


def wait_for(condition, seconds, explain=lambda: ""):
    """Waits until a condition holds; its value."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, explain()
        time.sleep(0.3)
    return value
