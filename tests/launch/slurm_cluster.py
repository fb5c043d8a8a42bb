"""A cluster of one node, of Debian's packages of Slurm, for tests.

apt-get install slurmctld slurmd slurm-client slurmdbd munge mariadb-server
"""

import contextlib
import os
import pathlib
import shutil
import socket
import subprocess
import time

PROGRAMS = (
  *("slurmctld", "slurmd", "slurmdbd", "munged", "mariadbd"),
  *("mariadb-install-db", "sacctmgr", "sbatch", "squeue", "sacct"),
)
# A job that is queued again waits until its old credential has expired, which
# is two minutes unless cred_expire says otherwise.
CONFIG = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ctld}
SlurmdPort={slurmd}
AuthInfo=socket={folder}/munge.sock,cred_expire=6
SlurmUser=root
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SwitchType=switch/none
MpiDefault=none
ReturnToService=2
SlurmdParameters=config_overrides
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
KillWait=30
SchedulerParameters=sched_interval=1,batch_sched_delay=0
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort={dbd}
AccountingStoragePass={folder}/munge.sock
JobAcctGatherType=jobacct_gather/none
NodeName={host} NodeAddr=127.0.0.1 CPUs=4 State=UNKNOWN
PartitionName=low Nodes={host} Default=YES PriorityTier=1 GraceTime=30 State=UP
PartitionName=high Nodes={host} PriorityTier=2 State=UP
"""
DATABASE = """
AuthInfo=socket={folder}/munge.sock
DbdHost={host}
DbdAddr=127.0.0.1
DbdPort={dbd}
SlurmUser=root
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort={mysql}
StorageUser=root
StoragePass=none
LogFile={folder}/slurmdbd.log
PidFile={folder}/slurmdbd.pid
"""


def missing() -> str:
  """Says why no cluster can be started here; "" if one can."""
  if os.getuid():
    return "starting Slurm needs root"
  absent = [name for name in PROGRAMS if not shutil.which(name)]
  return f"no {', '.join(absent)} here" if absent else ""


@contextlib.contextmanager
def running(folder: pathlib.Path):
  """Starts a cluster of four cores; yields the environment of its clients."""
  folder.chmod(0o755)
  for name in ("state", "spool", "db"):
    (folder / name).mkdir()
  ports = dict(zip(("ctld", "slurmd", "dbd", "mysql"), _free_ports(4)))
  values = dict(folder=folder, host=socket.gethostname().split(".")[0], **ports)
  (folder / "slurm.conf").write_text(CONFIG.format(**values))
  (folder / "slurmdbd.conf").write_text(DATABASE.format(**values))
  (folder / "slurmdbd.conf").chmod(0o600)
  (folder / "key").write_bytes(os.urandom(1024))
  (folder / "key").chmod(0o400)
  env = {**os.environ, "SLURM_CONF": str(folder / "slurm.conf")}
  processes: list[subprocess.Popen] = []

  def start(*words):
    with open(folder / f"{words[0]}.out", "w") as log:
      processes.append(
        subprocess.Popen(words, env=env, stdout=log, stderr=subprocess.STDOUT)
      )

  try:
    start(
      *("munged", "--foreground", "--force", f"--key-file={folder}/key"),
      f"--socket={folder}/munge.sock",
      f"--pid-file={folder}/munged.pid",
      f"--seed-file={folder}/seed",
      f"--log-file={folder}/munged.log",
    )
    subprocess.run(
      [
        *("mariadb-install-db", "--user=root", f"--datadir={folder}/db"),
        *("--auth-root-authentication-method=normal", "--skip-test-db"),
      ],
      check=True,
      capture_output=True,
    )
    start(
      *("mariadbd", "--no-defaults", "--user=root", f"--datadir={folder}/db"),
      f"--socket={folder}/db.sock",
      *(f"--port={ports['mysql']}", "--bind-address=127.0.0.1"),
      *("--skip-grant-tables", "--innodb-buffer-pool-size=32M"),
      f"--pid-file={folder}/db.pid",
    )
    _wait_for_port(ports["mysql"])
    start("slurmdbd", "-D")
    _wait_for_port(ports["dbd"])
    call = lambda *words: subprocess.run(
      words, env=env, capture_output=True, text=True
    )
    _wait(
      lambda: not call("sacctmgr", "-i", "add", "cluster", "test").returncode
    )
    start("slurmctld", "-D")
    start("slurmd", "-D")
    _wait(lambda: "idle" in call("sinfo", "-h", "-o", "%T").stdout)
    yield env
  finally:
    for process in reversed(processes):
      process.terminate()
    for process in processes:
      try:
        process.wait(timeout=10)
      except subprocess.TimeoutExpired:
        process.kill()


def _free_ports(count: int) -> list[int]:
  sockets = [socket.socket() for _ in range(count)]
  for each in sockets:
    each.bind(("127.0.0.1", 0))
  ports = [each.getsockname()[1] for each in sockets]
  for each in sockets:
    each.close()
  return ports


def _wait_for_port(port: int) -> None:
  def answers():
    try:
      socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
      return False
    return True

  _wait(answers)


def _wait(condition, seconds: float = 60) -> None:
  deadline = time.monotonic() + seconds
  while not condition():
    assert time.monotonic() < deadline, "Slurm did not start"
    time.sleep(0.1)
