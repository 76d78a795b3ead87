//! `run`, and what becomes of its program.

use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use segstore::{OpenOptions, Session};
use serde_json::Value;

use crate::cluster::{Cluster, has_ended, segctl, until};

#[test]
fn a_program_runs_on_one_node_and_another_stands_by() {
    let cluster = Cluster::start(2);
    let marks = cluster.file("marks");
    let script = |node: usize| format!("echo {node} $$ >> {}; exec sleep 600", marks.display());
    let lines = || std::fs::read_to_string(&marks).unwrap_or_default().lines().map(str::to_owned).collect::<Vec<_>>();
    let mut first = cluster.start_run(1, "job", &script(1));
    until("the first runs", || lines().len() == 1);
    let mut second = cluster.start_run(2, "job", &script(2));
    assert_eq!(cluster.code(&["put", "job", "/etc/hostname", "--wait", "0s"]), 11, "another session holds the name");
    // The runner dies: its program is killed, and the other takes its place.
    first.kill().unwrap();
    first.wait().unwrap();
    until("the second runs", || lines().len() == 2);
    let first_line = lines().remove(0);
    let program = first_line.split(' ').nth(1).unwrap();
    assert!(has_ended(program), "they run side by side");
    // Asked to end, it passes that on.
    send(second.id(), Signal::SIGTERM);
    assert_eq!(second.wait().unwrap().code(), Some(128 + 15));
}

/// Whatever keeps the supervisor from ending it.
#[test]
fn the_name_of_a_runner_that_was_killed_is_held_until_its_program_has_ended() {
    let cluster = Cluster::start(2);
    let marks = cluster.file("marks");
    let script = format!("echo $PPID $$ >> {}; exec sleep 600", marks.display());
    let lines = || std::fs::read_to_string(&marks).unwrap_or_default().lines().map(str::to_owned).collect::<Vec<_>>();
    let mut first = cluster.start_run(1, "job", &script);
    until("the first runs", || lines().len() == 1);
    let mut second = cluster.start_run(2, "job", &script);
    let first_line = lines().remove(0);
    let (supervisor, program) = first_line.split_once(' ').unwrap();
    let supervisor = supervisor.parse().unwrap();
    send(supervisor, Signal::SIGSTOP);
    first.kill().unwrap();
    first.wait().unwrap();
    std::thread::sleep(Duration::from_secs(1));
    assert!(!has_ended(program) && lines().len() == 1, "they run side by side: {:?}", lines());
    send(supervisor, Signal::SIGCONT);
    until("the second runs", || lines().len() == 2);
    assert!(has_ended(program), "they run side by side");
    send(second.id(), Signal::SIGTERM);
    second.wait().unwrap();
}

/// One that has become another user: the name is not let go beside it.
#[test]
fn a_program_that_may_not_be_killed_is_waited_for() {
    assert!(nix::unistd::geteuid().is_root(), "a program of another user's is root's to make: run the tests as root");
    let cluster = Cluster::start(1);
    let (privileged, mark, said) = (cluster.file("setpriv"), cluster.file("mark"), cluster.file("said"));
    let copied = Command::new("install").args(["-m", "4755", "/usr/bin/setpriv"]).arg(&privileged).status().unwrap();
    assert!(copied.success());
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o777);
    std::fs::set_permissions(cluster.dir(), open).unwrap();
    let script = format!(
        "exec {} --reuid 0 --regid 0 --clear-groups sh -c 'echo $$ > {}; exec sleep 600'",
        privileged.display(),
        mark.display()
    );
    let mut runner = cluster.command(1, &["run", "job", "--grace", "200ms", "--", "sh", "-c", &script]);
    let mut runner = runner.uid(65_534).stderr(std::fs::File::create(&said).unwrap()).spawn().unwrap();
    let program = || std::fs::read_to_string(&mark).unwrap_or_default().trim().to_owned();
    until("it runs", || !program().is_empty());
    send(runner.id(), Signal::SIGTERM);
    until("it is said", || std::fs::read_to_string(&said).unwrap().contains("may not kill: waiting for its end"));
    std::thread::sleep(Duration::from_millis(300));
    assert!(runner.try_wait().unwrap().is_none() && !has_ended(&program()));
    assert_eq!(cluster.code(&["put", "job", "/etc/hostname", "--wait", "0s"]), 11, "the name is held");
    send(program().parse().unwrap(), Signal::SIGKILL);
    assert_eq!(runner.wait().unwrap().code(), Some(128 + 9));
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
    let made = &listed[0];
    assert_eq!((&made["name"], &made["mode"], &made["owner"]), (&"made".into(), &"600".into(), &Value::Null));
    assert_eq!((&made["replicas_wanted"], &made["replicas_in_sync"]), (&1.into(), &1.into()));
    assert_eq!((&made["capacity_bytes"], &made["block_bytes"]), (&(1 << 20).into(), &4096.into()));
    assert!(made["created"].as_str().unwrap().ends_with('Z'));
    assert_eq!((&listed[1]["name"], &listed[1]["owner"]["node"]), (&"job".into(), &"n1".into()));
    assert!(listed[1]["owner"]["since"].as_str().unwrap().ends_with('Z') && listed[1]["id"].is_null());
    assert_eq!(cluster.json(&["status", "job"]), listed[1]);
    let status = cluster.json(&["status", "made"]);
    assert_eq!((&status["id"], &status["owner"], &status["length_bytes"]), (&made["id"], &Value::Null, &Value::Null));
    assert_eq!((&status["replicas"][0]["node"], &status["replicas"][0]["epoch"]), (&"n2".into(), &1.into()));
    let session = Session::connect_to(cluster.socket(1)).unwrap();
    let owned = session.open("made", &OpenOptions::new()).unwrap();
    let status = cluster.json(&["status", "made"]);
    assert_eq!((&status["owner"]["node"], &status["length_bytes"]), (&"n1".into(), &owned.len().into()));
    assert_eq!((&status["epoch_acknowledged"], &status["unsafe_age_seconds"]), (&1.into(), &0.0.into()));
    until("its owner reaches the replica", || cluster.json(&["status", "made"])["replicas"][0]["over"] == "shm");
    drop(owned);
    let nodes = cluster.json(&["nodes"]);
    assert_eq!(cluster.json(&["status"])["nodes"][1]["name"], "n2");
    assert_eq!((&nodes[1]["budget_bytes"], &nodes[0]["used_bytes"]), (&(256 << 20).into(), &0.into()));
    assert!(nodes[1]["used_bytes"].as_u64() > Some(2 << 20));
    let refused = cluster.run(&["rm", "--force", "job"]);
    assert!(String::from_utf8(refused.stderr).unwrap().contains("its name is held by segctl"));
    send(job.id(), Signal::SIGTERM);
    job.wait().unwrap();
}

#[test]
fn the_programs_exit_code_is_passed_on() {
    let cluster = Cluster::start(1);
    assert_eq!(cluster.code(&["run", "job", "--", "sh", "-c", "exit 7"]), 7);
    for (program, code) in [("/no/such/program", 127), ("no-such-program", 127), ("/etc/passwd", 126), ("/", 126)] {
        let ran = cluster.run(&["run", "job", "--", program]);
        let said = String::from_utf8(ran.stderr).unwrap();
        assert_eq!((ran.status.code(), said.lines().count()), (Some(code), 1), "{program}: {said}");
    }
}

pub(crate) fn send(process: u32, signal: Signal) {
    kill(Pid::from_raw(process.try_into().unwrap()), signal).unwrap();
}

/// Beside the program's next life nothing of this one may go on.
#[test]
fn nothing_of_a_program_stays() {
    let cluster = Cluster::start(1);
    let marks = cluster.file("marks");
    // A child, and one that has left the process group and its parent.
    let script = |end: &str| {
        let marks = marks.display();
        format!("sleep 600 & echo $! > {marks}; setsid sh -c 'sleep 600 & echo $! >> {marks}; echo >> {marks}'; {end}")
    };
    let left = || std::fs::read_to_string(&marks).unwrap_or_default().lines().map(str::to_owned).collect::<Vec<_>>();
    let gone = || left()[..2].iter().all(|process| has_ended(process));
    for how in [Signal::SIGKILL, Signal::SIGTERM] {
        let mut runner = cluster.start_run(1, "job", &script("sleep 600"));
        until("both run", || left().len() == 3);
        assert!(!gone());
        send(runner.id(), how);
        runner.wait().unwrap();
        until("nothing is left", gone);
        std::fs::remove_file(&marks).unwrap();
    }
    assert_eq!(cluster.code(&["run", "job", "--", "sh", "-c", &script("exit 3")]), 3);
    assert!(left().len() == 3 && gone(), "when it ends by itself, too");
}

#[test]
fn signals_reach_the_program() {
    let cluster = Cluster::start(1);
    let marks = cluster.file("marks");
    let script = format!(
        "for s in HUP QUIT USR1 USR2 WINCH; do trap \"echo $s >> {0}\" $s; done; echo >> {0}; \
         while :; do sleep 0.02; done",
        marks.display()
    );
    let seen = |what: &str| std::fs::read_to_string(&marks).unwrap_or_default().lines().any(|line| line == what);
    // Whoever starts the tests may ignore some, as nohup and `&` do; a shell cannot trap what it was started without.
    let program = ["env", "--default-signal", "sh", "-c", &script];
    let mut runner = cluster.command(1, &[&["run", "job", "--grace", "50ms", "--"], &program[..]].concat());
    let mut runner = runner.stdin(Stdio::null()).spawn().unwrap();
    until("it runs", || seen(""));
    for signal in [Signal::SIGHUP, Signal::SIGQUIT, Signal::SIGUSR1, Signal::SIGUSR2, Signal::SIGWINCH] {
        send(runner.id(), signal);
        until("the program got it", || seen(&signal.as_str()[3..]));
    }
    // None of these says that it is to end: no time runs. Nor is the daemon taken for silent while the runner is stopped.
    send(runner.id(), Signal::SIGSTOP);
    std::thread::sleep(Duration::from_millis(3200));
    send(runner.id(), Signal::SIGCONT);
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(runner.try_wait().unwrap(), None);
    send(runner.id(), Signal::SIGTERM);
    assert_eq!(runner.wait().unwrap().code(), Some(128 + 15));
}

/// As by `ssh -t`, when the connection breaks: then the runner leads the terminal's session, and it alone is told.
#[test]
fn a_terminal_that_hangs_up_reaches_the_program() {
    let cluster = Cluster::start(1);
    let (marks, socket) = (cluster.file("marks"), cluster.file("n1/segstored.sock"));
    let program = cluster.file("program");
    let lines =
        format!("trap 'echo HUP >> {0}; exit' HUP; echo up >> {0}; while :; do sleep 0.02; done", marks.display());
    std::fs::write(&program, lines).unwrap();
    let segctl = env!("CARGO_BIN_EXE_segctl");
    let runner = format!(
        "exec {segctl} --socket {} run job -- env --default-signal=HUP sh {}",
        socket.display(),
        program.display()
    );
    let mut terminal = Command::new("script");
    let mut terminal = terminal.args(["-qc", &runner, "/dev/null"]).stdin(Stdio::null()).spawn().unwrap();
    let seen = |what: &str| std::fs::read_to_string(&marks).unwrap_or_default().lines().any(|line| line == what);
    until("it runs", || seen("up"));
    terminal.kill().unwrap();
    terminal.wait().unwrap();
    until("the program got it", || seen("HUP"));
}

#[test]
fn children_that_the_runner_had_before_it_was_one_live_on() {
    let cluster = Cluster::start(1);
    let (child, socket) = (cluster.file("child"), cluster.file("n1/segstored.sock"));
    let segctl = env!("CARGO_BIN_EXE_segctl");
    let (socket, file) = (socket.display(), child.display());
    let script = format!("sleep 600 & echo $! > {file}; exec {segctl} --socket {socket} run job -- true");
    assert!(Command::new("sh").args(["-c", &script]).status().unwrap().success());
    let child = std::fs::read_to_string(&child).unwrap();
    assert!(!has_ended(child.trim()));
    send(child.trim().parse().unwrap(), Signal::SIGKILL);
}

/// Between its checkpoints such a script has nothing open, and nobody to ask is there: what all its replicas hold is read.
#[test]
fn what_a_script_holds_is_read_beside_it() {
    let cluster = Cluster::start(3);
    let (state, done) = (cluster.file("state"), cluster.file("done"));
    std::fs::write(&state, "state").unwrap();
    let (segctl, state, mark) = (env!("CARGO_BIN_EXE_segctl"), state.display(), done.display());
    let script = format!(
        "set -e; {segctl} put job {state} --replicas 2; echo more >> {state}; {segctl} put job {state}; touch {mark}; sleep 600"
    );
    let mut run = cluster.start_run(2, "job", &script);
    until("it is put", || done.exists());
    let term = |status: &str| status.lines().find(|line| line.starts_with("owner")).unwrap().to_owned();
    let status = || String::from_utf8(cluster.run(&["status", "job"]).stdout).unwrap();
    let before = status();
    assert!(before.contains("nobody has it open"), "{before}");
    assert_eq!(cluster.get("job"), b"statemore\n");
    assert_eq!(cluster.json(&["get", "job", "/dev/null"])["acknowledged"], true);
    assert_eq!(
        term(&before).split(", since").next(),
        term(&status()).split(", since").next(),
        "nothing was taken over"
    );
    send(run.id(), Signal::SIGTERM);
    run.wait().unwrap();
}

/// A shell script is an application too.
#[test]
fn a_script_makes_checkpoints_of_what_it_holds() {
    let cluster = Cluster::start(2);
    std::fs::write(cluster.file("n2/in"), "state").unwrap();
    let script = "set -e; cd n2; segctl=$0; $segctl get job out || test $? = 10
        $segctl put job in; $segctl get job out; cmp in out
        echo more >> in; $segctl put job in; $segctl get job out; cmp in out";
    // A socket that is named from here must be found from there.
    let mut run = segctl();
    run.args(["--socket", "n1/segstored.sock", "run", "job", "--", "sh", "-c", script, env!("CARGO_BIN_EXE_segctl")]);
    let ran = run.current_dir(cluster.dir()).output().unwrap();
    assert!(ran.status.success(), "{ran:?}");
    assert_eq!(cluster.get("job"), b"statemore\n");
}
