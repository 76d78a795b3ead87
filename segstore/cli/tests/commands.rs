//! The commands as an operator types them, on a cluster that `dev up` starts.

#![expect(clippy::unwrap_used, reason = "a test that meets the unexpected ends")]

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tempfile::TempDir;

struct Cluster {
    place: TempDir,
}

fn segctl() -> Command {
    let program = Path::new(env!("CARGO_BIN_EXE_segctl"));
    let daemon = program.with_file_name("segstored");
    assert!(daemon.is_file(), "{} is not built: cargo test -p segstored --no-run", daemon.display());
    let mut command = Command::new(program);
    command.env_remove("SEGSTORE_SOCKET").env_remove("SEGSTORE_SESSION");
    command
}

impl Cluster {
    fn start(nodes: usize) -> Cluster {
        let cluster = Cluster { place: TempDir::new().unwrap() };
        let up =
            cluster.run(&["dev", "up", "--nodes", &nodes.to_string(), "--memory", "256MiB", "--dir", cluster.dir()]);
        assert!(up.status.success(), "{up:?}");
        cluster
    }

    fn dir(&self) -> &str {
        self.place.path().to_str().unwrap()
    }

    fn file(&self, name: &str) -> PathBuf {
        self.place.path().join(name)
    }

    fn socket(&self, node: usize) -> PathBuf {
        self.file(&format!("n{node}/segstored.sock"))
    }

    fn command(&self, node: usize, arguments: &[&str]) -> Command {
        let mut command = segctl();
        command.arg("--socket").arg(self.socket(node)).args(arguments);
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.command(1, arguments).output().unwrap()
    }

    fn code(&self, arguments: &[&str]) -> i32 {
        self.run(arguments).status.code().unwrap()
    }

    /// What a command says as JSON.
    fn json(&self, arguments: &[&str]) -> Value {
        let output = self.run(&[&["--json"], arguments].concat());
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        serde_json::from_slice(&output.stdout).unwrap()
    }

    fn put(&self, name: &str, content: &[u8]) -> Value {
        self.put_with(name, content, 2)
    }

    fn put_with(&self, name: &str, content: &[u8], replicas: u32) -> Value {
        let file = self.file("content");
        std::fs::write(&file, content).unwrap();
        self.json(&["put", name, file.to_str().unwrap(), "--replicas", &replicas.to_string()])
    }

    fn get(&self, name: &str) -> Vec<u8> {
        let file = self.file("copy");
        let got = self.run(&["get", name, file.to_str().unwrap()]);
        assert!(got.status.success(), "{got:?}");
        std::fs::read(file).unwrap()
    }

    fn start_run(&self, node: usize, name: &str, script: &str) -> Child {
        let mut command = self.command(node, &["run", name, "--", "sh", "-c", script]);
        command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let down = self.run(&["dev", "down", "--dir", self.dir()]);
        if !std::thread::panicking() {
            assert!(down.status.success(), "{down:?}");
        }
    }
}

fn until(what: &str, mut is: impl FnMut() -> bool) {
    let began = Instant::now();
    while !is() {
        assert!(began.elapsed() < Duration::from_secs(30), "waited too long until {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn files_go_in_and_come_out() {
    let cluster = Cluster::start(3);
    let up = cluster.json(&["nodes"]).as_array().unwrap().iter().filter(|node| node["up"] == true).count();
    assert_eq!(up, 3);
    let mut content: Vec<u8> = (0..3_000_000_u32).map(|i| i.wrapping_mul(2_654_435_761).to_le_bytes()[2]).collect();
    let first = cluster.put("files/a", &content);
    assert_eq!((&first["epoch"], &first["elsewhere"]), (&1.into(), &2.into()));
    assert_eq!(cluster.get("files/a"), content);
    content[1_234_567] ^= 1;
    let second = cluster.put("files/a", &content);
    assert_eq!(second["changed_blocks"], 1);
    assert!(second["sent_bytes"].as_u64().unwrap() < 64 << 10, "{second}");
    assert_eq!(cluster.get("files/a"), content);
    content.extend([7; 100_000]);
    cluster.put("files/a", &content);
    assert_eq!(cluster.get("files/a"), content);
    content.truncate(5);
    cluster.put("files/a", &content);
    assert_eq!(cluster.get("files/a"), content);
    // What is beyond the end does not come back.
    content.extend([0; 10_000]);
    cluster.put("files/a", &content);
    assert_eq!(cluster.get("files/a"), content);
    assert_eq!(cluster.code(&["rm", "files/a"]), 0);
    assert_eq!(cluster.json(&["ls"]), Value::Array(Vec::new()));
}

/// Whoever writes a checkpoint to a device means the device.
#[test]
fn what_is_no_file_stays_what_it_is() {
    use std::os::unix::fs::{FileTypeExt, PermissionsExt};
    let cluster = Cluster::start(2);
    cluster.put_with("a", b"state", 1);
    assert_eq!(cluster.code(&["get", "a", "/dev/null"]), 0);
    assert!(std::fs::metadata("/dev/null").unwrap().file_type().is_char_device());
    let (target, link) = (cluster.file("target"), cluster.file("link"));
    std::fs::write(&target, b"before").unwrap();
    std::fs::set_permissions(&target, PermissionsExt::from_mode(0o600)).unwrap();
    std::os::unix::fs::symlink(&target, &link).unwrap();
    assert_eq!(cluster.code(&["get", "a", link.to_str().unwrap()]), 0);
    assert!(link.is_symlink());
    assert_eq!(std::fs::read(&target).unwrap(), b"state");
    assert_eq!(std::fs::metadata(&target).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(cluster.code(&["get", "a", cluster.dir()]), 1);
}

#[test]
fn a_cluster_is_measured_and_nothing_stays() {
    let cluster = Cluster::start(3);
    let measured = cluster.json(&["perf", "checkpoint"]);
    let rows = measured["rows"].as_array().unwrap();
    assert_eq!(rows.len(), 4);
    for row in rows {
        let [p50, p99, p999] = ["p50", "p99", "p999"].map(|part| row["ours"][part].as_f64().unwrap());
        assert!(0.0 < p50 && p50 <= p99 && p99 <= p999, "{row}");
        assert!(row["cache_line"].as_f64().unwrap() > 0.0);
    }
    assert_eq!(cluster.json(&["ls"]), Value::Array(Vec::new()));
    assert_eq!(cluster.code(&["perf", "size"]), 2);
    assert_eq!(cluster.code(&["perf", "load"]), 16, "no node has room for it");
    assert_eq!(cluster.json(&["ls"]), Value::Array(Vec::new()));
}

#[test]
fn every_mistake_has_its_code() {
    let cluster = Cluster::start(2);
    let file = cluster.file("content");
    std::fs::write(&file, [1; 10_000]).unwrap();
    let file = file.to_str().unwrap();
    assert_eq!(cluster.code(&["get", "nothing", file]), 10);
    assert_eq!(cluster.code(&["rm", "nothing"]), 10);
    assert_eq!(cluster.code(&["put", "a name", file]), 2);
    assert_eq!(cluster.code(&["put", "a/../b", file]), 2);
    assert_eq!(cluster.code(&["put", "a", file, "--block-size", "3000"]), 2);
    assert_eq!(cluster.code(&["put", "a", file, "--capacity", "0"]), 2);
    assert_eq!(cluster.code(&["put", "a", file, "--capacity", "100G"]), 16);
    assert_eq!(cluster.code(&["put", "a", file, "--replicas", "99"]), 2);
    assert_eq!(cluster.code(&["put", "a", "/no/such/file"]), 1);
    assert_eq!(cluster.code(&["frobnicate"]), 2);
    assert_eq!(cluster.json(&["ls"]), Value::Array(Vec::new()), "nothing is half done");
    let nobody = segctl().args(["--socket", "/no/such.sock", "ls"]).output().unwrap();
    assert_eq!(nobody.status.code(), Some(15));
    assert!(String::from_utf8_lossy(&nobody.stderr).contains("/no/such.sock"));
    assert_eq!(cluster.code(&["put", "small", file, "--capacity", "12K"]), 0);
    std::fs::write(file, [1; 20_000]).unwrap();
    let too_long = cluster.run(&["put", "small", file]);
    assert_eq!(too_long.status.code(), Some(2));
    assert_eq!(cluster.get("small"), [1; 10_000], "what was there stays");
}

#[test]
fn a_program_runs_on_one_node_and_another_stands_by() {
    let cluster = Cluster::start(2);
    let marks = cluster.file("marks");
    let script = |node: usize| format!("echo {node} $$ >> {}; exec sleep 600", marks.display());
    let lines = || std::fs::read_to_string(&marks).unwrap_or_default().lines().map(str::to_owned).collect::<Vec<_>>();
    let mut first = cluster.start_run(1, "job", &script(1));
    until("the first runs", || lines().len() == 1);
    let mut second = cluster.start_run(2, "job", &script(2));
    assert_eq!(cluster.code(&["put", "job", "/etc/hostname"]), 11, "another session holds the name");
    // The runner dies: its program is killed, and the other takes its place.
    first.kill().unwrap();
    first.wait().unwrap();
    until("the second runs", || lines().len() == 2);
    let program: i32 = lines()[0].split(' ').nth(1).unwrap().parse().unwrap();
    until("the first program is dead", || {
        let stat = std::fs::read_to_string(format!("/proc/{program}/stat")).unwrap_or_default();
        stat.is_empty() || stat.contains(") Z ")
    });
    // Asked to end, it passes that on.
    kill(Pid::from_raw(second.id().try_into().unwrap()), Signal::SIGTERM).unwrap();
    assert_eq!(second.wait().unwrap().code(), Some(128 + 15));
}

/// A node that hung for longer than its lease was counted as dead: what ran there ends when it wakes.
#[test]
fn a_program_whose_node_was_given_up_ends() {
    let cluster = Cluster::start(2);
    let marks = cluster.file("marks");
    let script = format!("echo $$ >> {}; exec sleep 600", marks.display());
    let started = || std::fs::read_to_string(&marks).unwrap_or_default().lines().count();
    let mut first = cluster.start_run(2, "job", &script);
    until("the first runs", || started() == 1);
    let mut second = cluster.start_run(1, "job", &script);
    let daemon = std::fs::read_to_string(cluster.file("n2/segstored.pid")).unwrap();
    let daemon = Pid::from_raw(daemon.trim().parse().unwrap());
    kill(daemon, Signal::SIGSTOP).unwrap();
    until("the second runs", || started() == 2);
    kill(daemon, Signal::SIGCONT).unwrap();
    assert_eq!(first.wait().unwrap().code(), Some(12));
    kill(Pid::from_raw(second.id().try_into().unwrap()), Signal::SIGTERM).unwrap();
    second.wait().unwrap();
}

#[test]
fn the_programs_exit_code_is_passed_on() {
    let cluster = Cluster::start(1);
    assert_eq!(cluster.code(&["run", "job", "--", "sh", "-c", "exit 7"]), 7);
    assert_eq!(cluster.code(&["run", "job", "--", "/no/such/program"]), 1);
}

#[test]
fn a_cluster_that_is_down_leaves_nothing_behind() {
    let cluster = Cluster::start(2);
    let again = cluster.run(&["dev", "up", "--nodes", "2", "--dir", cluster.dir()]);
    assert!(again.status.success(), "up again is no mistake: {again:?}");
    let daemon = std::fs::read_to_string(cluster.file("n1/segstored.pid")).unwrap();
    let config = std::fs::read_to_string(cluster.file("n1/segstored.toml")).unwrap();
    let memory = config.lines().find_map(|line| line.strip_prefix("memory_dir = \"")).unwrap().trim_end_matches('"');
    assert!(Path::new(memory).is_dir());
    assert_eq!(cluster.code(&["dev", "down", "--dir", cluster.dir()]), 0);
    assert!(!Path::new(memory).exists() && !cluster.socket(1).exists());
    assert!(!Path::new(&format!("/proc/{}", daemon.trim())).exists() || is_zombie(daemon.trim()));
    // Up again, so that the end of the test has something to take down; what was on disk is still known.
    let up = cluster.run(&["dev", "up", "--nodes", "2", "--dir", cluster.dir()]);
    assert!(up.status.success(), "{up:?}");
}

fn is_zombie(pid: &str) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default().contains(") Z ")
}

#[test]
fn a_name_that_is_held_is_shown_and_json_has_units() {
    let cluster = Cluster::start(2);
    cluster.put_with("made", b"some bytes", 1);
    let mut job = cluster.start_run(1, "job", "sleep 60");
    let text = |arguments: &[&str]| String::from_utf8(cluster.run(arguments).stdout).unwrap();
    until("it is held", || text(&["ls"]).lines().any(|line| line.starts_with(" job") && line.contains("segctl")));
    assert!(text(&["status", "job"]).contains("is not made so far"));
    let listed = cluster.json(&["ls"]);
    assert_eq!((&listed[0]["name"], &listed[0]["access"]["mode"]), (&"made".into(), &"600".into()));
    assert!(listed[0]["created"].as_str().unwrap().ends_with('Z'));
    assert_eq!((&listed[1]["name"], &listed[1]["holder"]["node_name"]), (&"job".into(), &"n1".into()));
    let refused = cluster.run(&["rm", "--force", "job"]);
    assert!(String::from_utf8(refused.stderr).unwrap().contains("its name is held by segctl"));
    kill(Pid::from_raw(job.id().try_into().unwrap()), Signal::SIGTERM).unwrap();
    job.wait().unwrap();
}
