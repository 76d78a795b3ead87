//! A cluster as its operator has it: a file for each daemon, commands, and an etcd that lets in whom it knows.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use segstore::{OpenOptions, Session};
use tempfile::TempDir;

use super::etcd_access::Authority;
use super::etcd_server::EtcdServer;
use super::harness::until;
use super::ports::unused;
use super::roles::{check_state, opened, options, write_state};

/// Two machines' files and daemons.
struct Site {
    place: TempDir,
    memory: TempDir,
    daemons: [Option<Child>; 2],
}

impl Site {
    fn new() -> Self {
        let site = Self {
            place: TempDir::new().unwrap(),
            memory: TempDir::new_in("/dev/shm").unwrap(),
            daemons: [None, None],
        };
        site.secret("secret", b"an altogether secret sentence");
        site
    }

    fn file(&self, name: &str) -> PathBuf {
        self.place.path().join(name)
    }

    /// A file that its owner alone may read.
    fn secret(&self, name: &str, text: &[u8]) {
        std::fs::write(self.file(name), text).unwrap();
        std::fs::set_permissions(self.file(name), PermissionsExt::from_mode(0o600)).unwrap();
    }

    fn config(&self, node: usize) -> PathBuf {
        self.file(&format!("n{node}.toml"))
    }

    /// Writes a node's file, with these lines as well.
    fn configure(&self, node: usize, directory: &str) {
        let (place, memory) = (self.place.path().display(), self.memory.path().display());
        let text = format!(
            "name = \"n{node}\"\ndata_dir = \"{place}/n{node}\"\nmemory_dir = \"{memory}/n{node}\"\nmemory = \"64MiB\"\n\
             socket = \"{place}/n{node}.sock\"\nsecret_file = \"{place}/secret\"\nmetrics = \"off\"\nnode_lease = \"1s\"\n{directory}\n"
        );
        std::fs::write(self.config(node), text).unwrap();
    }

    fn daemon(&self, node: usize, arguments: &[&str]) -> Command {
        let mut daemon = Command::new(env!("CARGO_BIN_EXE_segstored"));
        daemon.arg("--config").arg(self.config(node)).args(arguments);
        daemon
    }

    /// `systemctl start`.
    fn start(&mut self, node: usize) {
        self.daemons[node] = Some(self.daemon(node, &[]).spawn().unwrap());
        self.session(node);
    }

    fn session(&self, node: usize) -> Session {
        let socket = self.file(&format!("n{node}.sock"));
        until("the daemon serves", || Session::connect_to(&socket).ok())
    }

    /// `systemctl stop`.
    fn stop(&mut self, node: usize) {
        let mut daemon = self.daemons[node].take().unwrap();
        kill(Pid::from_raw(daemon.id().cast_signed()), Signal::SIGTERM).unwrap();
        assert!(daemon.wait().unwrap().success());
    }

    /// `segctl directory`, with a node's configuration.
    fn directory(&self, node: usize, what: &str, file: &str) -> Output {
        let segctl = Path::new(env!("CARGO_BIN_EXE_segstored")).with_file_name("segctl");
        assert!(segctl.is_file(), "{} is not built: cargo build -p segctl", segctl.display());
        let mut command = Command::new(segctl);
        command.args(["directory", what, file]).arg("--config").arg(self.config(node)).current_dir(self.place.path());
        command.output().unwrap()
    }

    /// The lines that name an etcd with everything that one may want.
    fn etcd(&self, etcd: &EtcdServer) -> String {
        let place = self.place.path().display();
        format!(
            "directory = \"etcd\"\netcd_endpoints = {:?}\netcd_prefix = \"one/\"\netcd_ca_file = \"{place}/ca\"\n\
             etcd_cert_file = \"{place}/node.pem\"\netcd_key_file = \"{place}/node.key\"\netcd_user = \"node\"\n\
             etcd_password_file = \"{place}/password\"\nlisten = \"127.0.0.1:0\"",
            etcd.endpoints()
        )
    }

    /// An etcd that knows whoever has the files which those lines name.
    fn start_etcd(&self, authority: &Authority) -> EtcdServer {
        let mut etcd = EtcdServer::start_secure(self.place.path(), authority);
        etcd.admit_only("node", "word", "one/");
        let (certificate, key) = authority.sign("a machine");
        std::fs::write(self.file("node.pem"), certificate).unwrap();
        self.secret("node.key", &key);
        self.secret("password", b"word\n");
        etcd
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        for daemon in self.daemons.iter_mut().flatten() {
            let _ = daemon.kill();
            let _ = daemon.wait();
        }
    }
}

fn said(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// As the documentation of the directory says it, command by command.
#[test]
fn a_cluster_grows_by_commands_into_an_etcd_that_knows_its_nodes() {
    let mut site = Site::new();
    let keeper = unused();
    site.configure(0, &format!("directory = \"self\"\nlisten = \"{keeper}\""));
    site.configure(1, &format!("directory = \"{keeper}\"\nlisten = \"127.0.0.1:0\""));
    [0, 1].into_iter().for_each(|node| site.start(node));
    let session = site.session(1);
    until("both are up", || (session.nodes().ok()?.iter().filter(|node| node.up).count() == 2).then_some(()));
    let mut segment = opened(&session, &options());
    write_state(&mut segment, 2);
    segment.checkpoint().unwrap();
    segment.release().unwrap();

    site.stop(0);
    let exported = site.directory(0, "export", "directory.json");
    assert!(exported.status.success() && said(&exported).contains("entries exported"), "{exported:?}");
    let etcd = site.start_etcd(&Authority::new());
    for node in [0, 1] {
        site.configure(node, &site.etcd(&etcd));
        let nothing = site.directory(node, "export", "-");
        assert!(nothing.status.success() && said(&nothing).contains("0 entries exported"), "{nothing:?}");
    }
    let imported = site.directory(0, "import", "directory.json");
    assert_eq!(said(&imported), said(&exported).replace("exported", "imported"));
    site.stop(1);
    [0, 1].into_iter().for_each(|node| site.start(node));

    let session = site.session(0);
    until("both are up", || (session.nodes().ok()?.iter().filter(|node| node.up).count() == 2).then_some(()));
    let mut segment = session.open("s", &OpenOptions::new()).unwrap();
    assert_eq!((check_state(segment.bytes()), segment.term().0), (2, 2));
    write_state(&mut segment, 3);
    assert_eq!(segment.checkpoint().unwrap().in_sync, 2);
    let keys = etcd.control(&["get", "--prefix", "", "--keys-only"]);
    assert!(keys.lines().filter(|key| !key.is_empty()).all(|key| key.starts_with("one/")), "{keys}");
    assert!(keys.contains("one/segments/s") && keys.contains("one/holders/s"), "{keys}");
    let again = site.directory(1, "import", "directory.json");
    assert!(again.status.code() == Some(1) && said(&again).contains("stands there already"), "{again:?}");
}

/// What is wrong is said, with the name of what says it, before any daemon is started with it.
#[test]
fn what_keeps_a_node_out_of_an_etcd_is_said() {
    let site = Site::new();
    let authority = Authority::new();
    let etcd = site.start_etcd(&authority);
    let right = site.etcd(&etcd);
    std::fs::write(site.file("other.ca"), Authority::new().pem()).unwrap();
    let (certificate, key) = Authority::new().sign("a machine");
    std::fs::write(site.file("other.pem"), certificate).unwrap();
    site.secret("other.key", &key);
    site.secret("other.password", b"another");
    site.secret("nothing", b"\n");
    site.secret("open.key", &key);
    std::fs::set_permissions(site.file("open.key"), PermissionsExt::from_mode(0o644)).unwrap();
    // What is written instead of what, whether a look at the files shows it, and what is said.
    let wrong = [
        ("/ca\"", "/other.ca\"", false, "is `etcd_ca_file` the authority of its certificate?"),
        ("/ca\"", "/nothing\"", true, "etcd_ca_file: "),
        ("/ca\"", "/nowhere\"", true, "nowhere: No such file"),
        ("/node.", "/other.", false, "(`etcd_cert_file`, `etcd_key_file`)?"),
        ("/node.pem", "/nothing", true, "etcd_cert_file: "),
        ("/node.key", "/node.pem", true, "etcd_key_file: "),
        ("/node.key", "/open.key", true, "chmod 600 it"),
        ("/password", "/other.password", false, "are `etcd_user` and `etcd_password_file` right?"),
        ("/password", "/nothing", true, "etcd_password_file: "),
        ("\"one/\"", "\"two/\"", false, "may `etcd_user` read and write what begins with `etcd_prefix`?"),
        ("https:", "http:", false, "does it want https?"),
    ];
    for (what, instead, by_a_look, says) in wrong {
        assert!(right.contains(what));
        site.configure(0, &right.replace(what, instead));
        let told = site.directory(0, "export", "-");
        assert!(told.status.code() == Some(1) && said(&told).contains(says), "{instead}: {}", said(&told));
        let looked = site.daemon(0, &["--check-config"]).output().unwrap();
        assert_eq!(looked.status.code(), Some(if by_a_look { 2 } else { 0 }), "{instead}: {}", said(&looked));
        assert!(!by_a_look || said(&looked).contains(says), "{instead}: {}", said(&looked));
    }
    site.configure(0, &right);
    let told = site.directory(0, "export", "-");
    assert!(told.status.success(), "{told:?}");
    let without = right.lines().filter(|line| !line.starts_with("etcd_user") && !line.starts_with("etcd_password"));
    site.configure(0, &without.collect::<Vec<_>>().join("\n"));
    let told = site.directory(0, "export", "-");
    assert!(told.status.code() == Some(1) && said(&told).contains("permission denied"), "{told:?}");
}
