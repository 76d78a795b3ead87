//! Who a client is, as the kernel says.

use segstore::control::message::{Access, Fault, FaultKind};
use serde::{Deserialize, Serialize};
use tokio::net::UnixStream;

/// The process at the other end of a socket.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Credentials {
    /// Its user.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
    /// Its other groups.
    pub groups: Vec<u32>,
    /// The process.
    pub pid: i32,
    /// When it was started, as the kernel counts: tells it from a later process of the same number.
    pub started: u64,
}

/// What tells a process from every other, also from a later one of its number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct Process {
    /// Its number.
    pub pid: i32,
    /// When it was started, as the kernel counts; 0: it cannot be seen from here.
    pub started: u64,
}

impl Process {
    /// Whether it certainly has ended.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        self.started != 0 && !is_alive(self.pid, self.started)
    }
}

/// What somebody wants with a segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Want {
    /// To load it.
    Read,
    /// To own it.
    Write,
}

impl Credentials {
    /// Of the process that connected.
    ///
    /// # Errors
    /// The kernel does not say.
    pub fn of(stream: &UnixStream) -> std::io::Result<Self> {
        let peer = stream.peer_cred()?;
        let pid = peer.pid().unwrap_or_default();
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        Ok(Self {
            uid: peer.uid(),
            gid: peer.gid(),
            groups: groups(&status, peer.uid()),
            pid,
            started: started(pid).unwrap_or_default(),
        })
    }

    /// The process.
    #[must_use]
    pub fn process(&self) -> Process {
        Process { pid: self.pid, started: self.started }
    }

    /// Whether that process still lives.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        is_alive(self.pid, self.started)
    }

    /// Checks whether a segment may be given to this user and group, as for a file.
    ///
    /// # Errors
    /// It may not.
    pub fn check_giving(&self, access: Access) -> Result<(), Fault> {
        let Access { uid, gid, .. } = access;
        let text = if self.uid == 0 {
            return Ok(());
        } else if uid != self.uid {
            format!("user {} may not make a segment that belongs to user {uid}: only root may", self.uid)
        } else if gid != self.gid && !self.groups.contains(&gid) {
            format!("user {} is not in group {gid}, and may not make a segment that belongs to it", self.uid)
        } else {
            return Ok(());
        };
        Err(Fault::new(FaultKind::Denied, text))
    }

    /// Checks permission bits, as for a file.
    ///
    /// # Errors
    /// They do not allow it.
    pub fn check(&self, name: &str, access: Access, want: Want) -> Result<(), Fault> {
        let shift = if self.uid == access.uid {
            6
        } else if self.gid == access.gid || self.groups.contains(&access.gid) {
            3
        } else {
            0
        };
        let (bit, verb) = match want {
            Want::Read => (0o4, "load"),
            Want::Write => (0o2, "own"),
        };
        if self.uid == 0 || access.mode >> shift & bit != 0 {
            return Ok(());
        }
        let Access { uid, gid, mode } = access;
        let text = format!(
            "user {} may not {verb} segment {name}: it belongs to user {uid} and group {gid} with mode {mode:o}",
            self.uid
        );
        Err(Fault::new(FaultKind::Denied, text))
    }
}

/// Whether the process of that number is the one that was started then.
#[must_use]
pub fn is_alive(pid: i32, start: u64) -> bool {
    started(pid) == Some(start)
}

/// The further groups in /proc/<pid>/status, if the process still is the user that connected: it may have become another one since, with
/// that one's groups, or another process may have its number.
fn groups(status: &str, user: u32) -> Vec<u32> {
    let numbers = |key| {
        let line = status.lines().find_map(|line| line.strip_prefix(key)).unwrap_or_default();
        line.split_whitespace().filter_map(|number| number.parse().ok()).collect::<Vec<u32>>()
    };
    // Real, effective, saved, of the file system.
    let is_same = numbers("Uid:").get(1) == Some(&user);
    if is_same { numbers("Groups:") } else { Vec::new() }
}

/// Field 22 of /proc/<pid>/stat; the process's name before it may contain anything.
fn started(pid: i32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let after_name = &stat[stat.rfind(')')? + 1..];
    after_name.split_whitespace().nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn somebody(uid: u32, gid: u32, groups: &[u32]) -> Credentials {
        Credentials { uid, gid, groups: groups.to_vec(), pid: 1, started: 0 }
    }

    #[test]
    fn the_first_class_that_fits_decides() {
        let access = Access { uid: 10, gid: 20, mode: 0o046 };
        assert!(somebody(10, 20, &[]).check("s", access, Want::Read).is_err(), "the owner has no bits");
        assert!(somebody(11, 20, &[]).check("s", access, Want::Read).is_ok());
        assert!(somebody(11, 1, &[20]).check("s", access, Want::Write).is_err());
        assert!(somebody(11, 1, &[]).check("s", access, Want::Write).is_ok());
        assert!(somebody(0, 1, &[]).check("s", access, Want::Write).is_ok());
    }

    #[test]
    fn only_root_gives_segments_away() {
        let to = |uid, gid| Access { uid, gid, mode: 0o600 };
        assert!(somebody(10, 20, &[21]).check_giving(to(10, 21)).is_ok());
        assert!(somebody(10, 20, &[21]).check_giving(to(10, 22)).is_err());
        assert!(somebody(10, 20, &[]).check_giving(to(11, 20)).is_err());
        assert!(somebody(0, 0, &[]).check_giving(to(11, 20)).is_ok());
    }

    #[test]
    fn another_users_groups_do_not_count() {
        let status = "Name:\tsudo\nUid:\t1000\t0\t0\t0\nGid:\t5\t5\t5\t5\nGroups:\t4 27 \n";
        assert_eq!(groups(status, 0), [4, 27]);
        assert!(groups(status, 1000).is_empty());
        assert!(groups("", 1000).is_empty());
    }

    #[test]
    fn a_process_is_told_from_a_later_one() {
        let own = i32::try_from(std::process::id()).expect("a process number");
        let start = started(own).expect("this process has a start");
        assert!(is_alive(own, start) && !is_alive(own, start + 1));
    }
}
