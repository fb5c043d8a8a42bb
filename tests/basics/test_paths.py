"""Text of a user as a path: local, a URL, or refused."""

import pathlib
import pickle
import subprocess
import sys

import pytest

from v2a_jax.basics import files, paths, store


@pytest.mark.parametrize("text", ["runs/a", "/a/b.txt", "patches:16000:512:1"])
def test_a_local_path_is_a_pathlib_path(text):
  path = paths.as_path(text)
  assert isinstance(path, pathlib.Path) and str(path) == text
  assert paths.local_path(text, "a video") == path


@pytest.mark.parametrize(
  "text,words",
  [
    ("gs:/bucket/run", "write gs://bucket/run"),
    ("https://example.com/x", "only local paths, gs:// and s3://"),
    ("s3://", "names no bucket"),
  ],
)
def test_what_is_no_path_is_refused(text, words):
  with pytest.raises(paths.PathError, match=words):
    paths.as_path(text)


@pytest.mark.parametrize("text", ["gs://b/clip.mp4", "s3:/b/clip.mp4"])
def test_what_must_be_local_is_refused_as_a_url(text):
  for name in (text, pathlib.Path(text)):
    with pytest.raises(paths.PathError, match="the video must be on this mach"):
      paths.local_path(name, "the video")


def test_no_local_path_is_made_of_a_url():
  path = paths.as_path("gs://bucket/a")
  for other in (path.absolute(), path.resolve(), paths.as_path(path)):
    assert str(other) == "gs://bucket/a"
  child = pickle.loads(pickle.dumps(path / "b")).with_name("c.txt")
  assert (str(child), str(child.parent)) == ("gs://bucket/a/c.txt", str(path))
  assert str(child.relative_to(path)) == "c.txt"


def test_a_store_path_reads_writes_and_lists(store_url):
  folder = paths.as_path(store_url) / "folder"
  assert not folder.exists() and list(folder.iterdir()) == []
  folder.mkdir(parents=True)
  assert (folder / "a.txt").create(b"one")
  assert not (folder / "a.txt").create(b"two")
  (folder / "below" / "b.bin").write_bytes(b"12")
  assert folder.is_dir() and not folder.is_file()
  assert (folder / "a.txt").is_file() and not (folder / "a.txt").is_dir()
  assert (folder / "a.txt").read_text() == "one"
  assert [p.name for p in folder.iterdir()] == ["a.txt", "below"]
  assert [str(p) for p in folder.glob("*.txt")] == [str(folder / "a.txt")]
  assert folder.sizes()["a.txt"] == 3
  (folder / "a.txt").unlink()
  assert not (folder / "a.txt").exists()
  with pytest.raises(FileNotFoundError, match=f"'{folder}/a.txt'"):
    (folder / "a.txt").read_bytes()


def test_a_change_by_another_process_is_seen(s3_url):
  folder = paths.as_path(s3_url)
  assert list(folder.iterdir()) == []
  code = (
    "import sys; from v2a_jax.basics.paths import as_path;"
    " as_path(sys.argv[1]).write_text('x')"
  )
  subprocess.run([sys.executable, "-c", code, f"{s3_url}/new"], check=True)
  assert [p.name for p in folder.iterdir()] == ["new"]


def test_whole_files_and_folders_on_a_store(store_url, tmp_path):
  url = paths.as_path(store_url)
  files.write_json(url / "a.json", {"x": 1})
  assert files.read_json(url / "a.json") == {"x": 1}
  files.write_whole(tmp_path / "same", (url / "a.json").read_bytes())
  assert files.sha256_of(url / "a.json") == files.sha256_of(tmp_path / "same")
  with pytest.raises(ZeroDivisionError), files.written(url / "b") as part:
    part.write_text("half")
    raise ZeroDivisionError
  assert not (url / "b").exists()
  with files.staged(url / "out", last="results.json") as folder:
    files.write_whole(folder / "results.json", "{}")
    (folder / "media").mkdir()
    files.write_whole(folder / "media" / "x", "x")
    assert not (url / "out").exists()
  assert sorted((url / "out").sizes()) == ["media", "results.json"]


def test_a_bucket_that_does_not_exist_is_refused(store_url):
  scheme = store_url[:2]
  for check in (paths.check_readable, paths.check_writable):
    with pytest.raises(store.StoreError, match=f"no bucket {scheme}://absent"):
      check(paths.as_path(f"{scheme}://absent/run"))


def test_a_bucket_without_permission_is_refused(object_stores):
  import boto3

  client = boto3.client("s3")
  client.create_bucket(Bucket="locked")
  deny = (
    '{"Version": "2012-10-17", "Statement": [{"Effect": "Deny", "Principal":'
    ' "*", "Action": ["s3:PutObject"], "Resource": "arn:aws:s3:::locked/*"}]}'
  )
  client.put_bucket_policy(Bucket="locked", Policy=deny)
  paths.check_readable(paths.as_path("s3://locked/run"))
  with pytest.raises(store.StoreError, match="permission denied") as error:
    paths.check_writable("s3://locked/run")
  assert "\n" not in str(error.value)


REFUSALS = {
  "credentials": "no credentials: set AWS_PROFILE",
  "endpoint": "the store does not answer",
  "package": "needs the package s3fs: pip install 'v2a_jax[cloud]'",
}


@pytest.mark.parametrize("missing", REFUSALS)
def test_what_is_missing_is_named(missing, object_stores, tmp_path):
  env = dict(object_stores.environment, PYTHONPATH=str(files_root()))
  if missing == "credentials":
    env = {k: v for k, v in env.items() if "KEY" not in k} | {
      "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "none")
    }
  elif missing == "endpoint":
    env |= {"AWS_ENDPOINT_URL": "http://127.0.0.1:9", "AWS_MAX_ATTEMPTS": "1"}
  hide = "sys.modules['s3fs'] = None; " if missing == "package" else ""
  code = (
    f"import sys; {hide}from v2a_jax.basics import paths\n"
    "try: paths.check_writable('s3://v2a-tests/run')\n"
    "except OSError as error: print(error)"
  )
  child = subprocess.run(
    [sys.executable, "-c", code], env=env, capture_output=True, text=True
  )
  assert REFUSALS[missing] in child.stdout, child
  assert child.stdout.count("\n") == 1 and "s3://v2a-tests/run" in child.stdout


def files_root() -> pathlib.Path:
  return pathlib.Path(__file__).parents[2]
