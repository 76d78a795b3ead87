//! What becomes of a directory on etcd when its members, its memory of changes and its users are not as they should be.

use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use segstored::directory::etcd::Access;
use segstored::directory::{Change, Directory, DirectoryError, Etcd, Swapped};

use crate::etcd_access::Authority;
use crate::etcd_server::{EtcdServer, QUICK};
use crate::promises::{Fixture, put, value};

/// One member.
pub(crate) struct EtcdFixture {
    directory: Etcd,
    _server: EtcdServer,
}

impl Fixture for EtcdFixture {
    const SHORT: Duration = Duration::from_secs(1);

    async fn start() -> Self {
        let server = EtcdServer::start(1, &QUICK);
        Self { directory: reach(&server, "a/").await, _server: server }
    }

    fn directory(&self) -> Arc<dyn Directory> {
        Arc::new(self.directory.clone())
    }
}

/// Waits until it answers.
async fn reach(server: &EtcdServer, prefix: &str) -> Etcd {
    let access = Access { endpoints: server.endpoints(), ..Access::default() };
    reach_by(&access, prefix).await
}

async fn reach_by(access: &Access, prefix: &str) -> Etcd {
    let directory = Etcd::new(access, prefix).unwrap();
    let until = Instant::now() + Duration::from_secs(20);
    while let Err(error) = directory.list("").await {
        assert!(Instant::now() < until, "{error}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    directory
}

#[tokio::test]
async fn two_clusters_share_an_etcd() {
    let server = EtcdServer::start(1, &QUICK);
    let [first, second] = [reach(&server, "a/").await, reach(&server, "ab/").await];
    put(&first, "same", None, b"1").await;
    put(&second, "same", None, b"2").await;
    for (directory, bytes) in [(&first, b"1"), (&second, b"2")] {
        let found = directory.list("").await.unwrap().entries;
        assert_eq!(
            found.iter().map(|entry| (entry.key.as_str(), entry.value.as_slice())).collect::<Vec<_>>(),
            [("same", bytes.as_slice())]
        );
    }
}

/// Either way: list again.
#[tokio::test]
async fn a_watch_from_before_what_is_kept_fails_or_ends() {
    let server = EtcdServer::start(1, &QUICK);
    let directory = reach(&server, "a/").await;
    let start = directory.list("").await.unwrap().revision;
    let mut last = None;
    for n in 0..5_u8 {
        last = Some(put(&directory, "a", last, &[n]).await);
    }
    server.control(&["compact", &last.unwrap().0.to_string()]);
    match directory.watch("", start).await {
        Ok(mut watch) => assert_eq!(watch.recv().await, None),
        Err(error) => assert_eq!(error, DirectoryError::Forgotten(start)),
    }
}

/// Whichever member is killed or stands still: what it is asked is asked of another, and a watch that it told ends.
#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_fails_is_left_for_another() {
    let mut server = EtcdServer::start(3, &QUICK);
    let directory = reach(&server, "a/").await;
    for (round, signal) in [(0_u8, Signal::SIGKILL), (1, Signal::SIGSTOP), (2, Signal::SIGKILL), (3, Signal::SIGSTOP)] {
        let lease = directory.grant(Duration::from_secs(30)).await.unwrap();
        let listing = directory.list("").await.unwrap();
        let mut watch = directory.watch("", listing.revision).await.unwrap();
        let leader = server.leader();
        // The leader, and in the other half of the rounds another.
        let victim = (leader + usize::from(round >= 2)) % 3;
        let began = Instant::now();
        server.signal(victim, signal);
        let key = round.to_string();
        let mut tries = 0;
        loop {
            tries += 1;
            match directory.compare_swap(&key, None, value(b"here")).await {
                Ok(Swapped::Made(_)) => break,
                // It was made by an attempt that nobody answered.
                Ok(Swapped::Conflict(Some(entry))) if tries > 1 && entry.value == b"here" => break,
                Ok(other) => panic!("{other:?}"),
                Err(DirectoryError::NoAnswer(_) | DirectoryError::OutOfReach(_)) => {}
                Err(error) => panic!("{error}"),
            }
            assert!(began.elapsed() < Duration::from_secs(15), "in vain for 15 s");
        }
        println!("{signal} of member {victim} (leader {leader}): an answer after {:?}, {tries} tries", began.elapsed());
        // The watch tells of it, or has ended.
        let told = tokio::time::timeout(Duration::from_secs(10), watch.recv()).await.expect("told, or ended");
        assert!(told.is_none_or(|change| matches!(change, Change::Put(entry) if entry.key == key)));
        directory.keep_alive(lease).await.unwrap();
        match signal {
            Signal::SIGSTOP => server.signal(victim, Signal::SIGCONT),
            _ => server.boot(victim, &QUICK),
        }
        server.control(&["endpoint", "health"]);
    }
}

/// A node whose lease lasts three seconds tries after three quarters of one, and its programs are ended two after the last answer.
#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_is_silent_costs_no_lease() {
    let mut server = EtcdServer::start(3, &QUICK);
    // Asked first, and not the leader: the two others go on as before.
    let first = (server.leader() + 1) % 3;
    let mut endpoints = server.endpoints();
    endpoints.rotate_left(first);
    let directory = reach_by(&Access { endpoints, ..Access::default() }, "a/").await;
    let lease = directory.grant(Duration::from_secs(30)).await.unwrap();
    server.signal(first, Signal::SIGSTOP);
    let mut times = Vec::new();
    for _ in 0..2 {
        let began = Instant::now();
        directory.keep_alive(lease).await.unwrap();
        times.push(began.elapsed());
    }
    server.signal(first, Signal::SIGCONT);
    assert!(times[0] < Duration::from_millis(1000), "{times:?}");
    assert!(times[1] < Duration::from_millis(400), "the silent one is still asked first: {times:?}");
}

#[tokio::test]
async fn an_etcd_that_is_away_is_out_of_reach() {
    let mut server = EtcdServer::start(1, &QUICK);
    let directory = reach(&server, "a/").await;
    server.signal(0, Signal::SIGKILL);
    let error = directory.compare_swap("a", None, value(b"1")).await.unwrap_err();
    assert!(matches!(&error, DirectoryError::OutOfReach(_) | DirectoryError::NoAnswer(_)), "{error}");
    let error = directory.compare_swap("a", None, value(b"1")).await.unwrap_err();
    assert!(matches!(&error, DirectoryError::OutOfReach(why) if why.contains(&server.endpoints()[0])), "{error}");
    server.boot(0, &QUICK);
    server.control(&["endpoint", "health"]);
    let until = Instant::now() + Duration::from_secs(5);
    while directory.compare_swap("a", None, value(b"1")).await.is_err() {
        assert!(Instant::now() < until);
    }
}

/// It says so and how to make room; what stands there is read and leases are kept alive meanwhile.
#[tokio::test]
async fn an_etcd_that_is_full_is_said_and_survived() {
    let quota = ["--quota-backend-bytes", "16777216"];
    let server = EtcdServer::start(1, &[&QUICK[..], &quota].concat());
    let directory = reach(&server, "a/").await;
    let lease = directory.grant(Duration::from_secs(60)).await.unwrap();
    let kept = put(&directory, "kept", None, b"kept").await;
    let (large, mut last) = (vec![7; 1 << 20], None);
    // What stood there before stays, until it is compacted.
    let refused = loop {
        match directory.compare_swap("large", last, value(&large)).await {
            Ok(Swapped::Made(revision)) => last = Some(revision),
            Ok(other) => panic!("{other:?}"),
            Err(error) => break error,
        }
    };
    assert!(matches!(&refused, DirectoryError::Full(why) if why.contains("space exceeded")), "{refused}");
    assert!(refused.to_string().contains("disarm its alarm"), "{refused}");
    assert_eq!(directory.read("kept").await.unwrap().unwrap().revision, kept);
    directory.keep_alive(lease).await.unwrap();
    server.control(&["compact", &last.unwrap().0.to_string()]);
    server.control(&["defrag"]);
    server.control(&["alarm", "disarm"]);
    put(&directory, "kept", Some(kept), b"there is room again").await;
}

/// Each side shows who it is; whoever is of another authority, or nobody, is not let in, and is told so.
#[tokio::test]
async fn an_etcd_with_tls_knows_its_nodes_and_is_known() {
    let place = tempfile::TempDir::new().unwrap();
    let (authority, other) = (Authority::new(), Authority::new());
    let server = EtcdServer::start_secure(place.path(), &authority);
    let access = Access {
        endpoints: server.endpoints(),
        authority: Some(authority.pem()),
        identity: Some(authority.sign("a node")),
        user: None,
    };
    let directory = reach_by(&access, "a/").await;
    put(&directory, "a", None, b"1").await;
    let wrong = [
        (Access { authority: Some(other.pem()), ..access.clone() }, "is `etcd_ca_file` the authority"),
        (Access { identity: Some(other.sign("a node")), ..access.clone() }, "(`etcd_cert_file`, `etcd_key_file`)"),
        (Access { identity: None, ..access.clone() }, "(`etcd_cert_file`, `etcd_key_file`)"),
    ];
    for (access, says) in wrong {
        let error = Etcd::new(&access, "a/").unwrap().read("a").await.unwrap_err().to_string();
        assert!(error.contains(says), "{error}");
    }
}

/// A user who may touch the keys of one cluster and no others.
#[tokio::test]
async fn an_etcd_with_users_lets_in_whom_it_knows() {
    let mut server = EtcdServer::start(1, &QUICK);
    reach(&server, "a/").await;
    server.admit_only("node", "word", "one/");
    let access = |user: Option<(&str, &str)>| Access {
        endpoints: server.endpoints(),
        user: user.map(|(name, password)| (name.to_owned(), password.to_owned())),
        ..Access::default()
    };
    let node = Some(("node", "word"));
    let directory = Etcd::new(&access(node), "one/").unwrap();
    let lease = directory.grant(Duration::from_secs(10)).await.unwrap();
    put(&directory, "a", None, b"1").await;
    directory.keep_alive(lease).await.unwrap();
    let start = directory.list("").await.unwrap();
    let mut watch = directory.watch("", start.revision).await.unwrap();
    put(&directory, "b", None, b"1").await;
    assert!(matches!(watch.recv().await, Some(Change::Put(_))));
    for (user, prefix, says) in [
        (node, "two/", "permission denied"),
        (Some(("node", "wrong")), "one/", "invalid user ID or password"),
        (None, "one/", "user name is empty"),
    ] {
        let error = Etcd::new(&access(user), prefix).unwrap().read("a").await.unwrap_err();
        assert!(matches!(&error, DirectoryError::Refused(why) if why.contains(says)), "{error}");
    }
}

/// What etcd gave a user to be known by is worth nothing after its time, after a member's restart, or after somebody's rights were changed. Nobody
/// may lose a lease by that.
#[tokio::test]
async fn a_user_is_known_again_when_his_token_is_worth_nothing() {
    let place = tempfile::TempDir::new().unwrap();
    let key = place.path().join("key");
    std::fs::write(&key, [7; 64]).unwrap();
    let signed = format!("jwt,priv-key={},sign-method=HS256,ttl=2s", key.display());
    for kind in ["simple", &signed] {
        let options = [&QUICK[..], &["--auth-token", kind]].concat();
        let mut server = EtcdServer::start(1, &options);
        reach(&server, "a/").await;
        server.admit_only("node", "word", "one/");
        let user = Some(("node".to_owned(), "word".to_owned()));
        let access = Access { endpoints: server.endpoints(), user, ..Access::default() };
        let directory = reach_by(&access, "one/").await;
        let lease = directory.grant(Duration::from_secs(60)).await.unwrap();
        let mut last = put(&directory, "a", None, b"1").await;
        for happening in ["rights", "restart", "time"] {
            match happening {
                "rights" => drop(server.control(&["user", "add", "another:word"])),
                "restart" => {
                    server.signal(0, Signal::SIGKILL);
                    server.boot(0, &options);
                    server.control(&["endpoint", "health"]);
                }
                _ => tokio::time::sleep(Duration::from_secs(4)).await,
            }
            let until = Instant::now() + Duration::from_secs(5);
            while let Err(error) = directory.keep_alive(lease).await {
                assert!(happening == "restart" && Instant::now() < until, "{kind}, {happening}: {error}");
            }
            let listing = directory.list("").await.unwrap();
            let mut watch = directory.watch("", listing.revision).await.unwrap();
            last = put(&directory, "a", Some(last), b"2").await;
            let told = watch.recv().await;
            assert!(
                matches!(&told, Some(Change::Put(entry)) if entry.revision == last),
                "{kind}, {happening}: {told:?}"
            );
        }
    }
}

/// Without a password: by the name in its certificate.
#[tokio::test]
async fn a_certificate_may_say_who_a_user_is() {
    let place = tempfile::TempDir::new().unwrap();
    let authority = Authority::new();
    let mut server = EtcdServer::start_secure(place.path(), &authority);
    let access = |name: &str| Access {
        endpoints: server.endpoints(),
        authority: Some(authority.pem()),
        identity: Some(authority.sign(name)),
        user: None,
    };
    let [known, unknown] = ["node", "stranger"].map(access);
    server.admit_only("node", "word", "one/");
    put(&reach_by(&known, "one/").await, "a", None, b"1").await;
    for (access, prefix) in [(&known, "two/"), (&unknown, "one/")] {
        let error = Etcd::new(access, prefix).unwrap().read("a").await.unwrap_err();
        assert!(matches!(&error, DirectoryError::Refused(why) if why.contains("permission denied")), "{error}");
    }
}
