//! Where the node's replicas are, and whether there is room for them.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sys::statfs::{TMPFS_MAGIC, statfs};
use segstore::NodeInfo;

use super::{Finding, Verdict};
use crate::output::units;

/// Where replicas are unless the daemon says something else.
const USUAL: &str = "/dev/shm";
/// Bytes without which nothing goes on.
const LEAST: u64 = 64 << 20;

/// The file system that the node's replicas are in.
struct Place {
    folder: PathBuf,
    mounted_at: PathBuf,
    is_tmpfs: bool,
    size: u64,
    free: u64,
}

/// What there is to say of the memory of a node, or of this machine's where no daemon answers.
pub(super) fn look(own: Option<&NodeInfo>) -> Vec<Finding> {
    let told = own.map(|node| node.memory_dir.as_str()).filter(|told| !told.is_empty());
    let folder = Path::new(told.unwrap_or(USUAL));
    match Place::of(folder) {
        Ok(place) => {
            own.map(|node| budget(node, &place)).into_iter().chain([room(&place), large_pages(&place)]).collect()
        }
        Err(error) => {
            let remedy = format!("mount -t tmpfs tmpfs {}, and start the daemon (again)", folder.display());
            vec![Finding::bad("shared memory", Verdict::Problem, format!("{}: {error}", folder.display()), remedy)]
        }
    }
}

impl Place {
    fn of(folder: &Path) -> Result<Self, Errno> {
        let about = statfs(folder)?;
        let bytes = |blocks: u64| blocks * u64::try_from(about.block_size()).unwrap_or_default();
        let device = |path: &Path| path.metadata().map(|about| about.dev()).ok();
        let own = device(folder);
        let mounted_at = folder.ancestors().take_while(|path| device(path) == own).last().unwrap_or(folder).to_owned();
        let (size, free) = (bytes(about.blocks()), bytes(about.blocks_available()));
        Ok(Self { folder: folder.to_owned(), mounted_at, is_tmpfs: about.filesystem_type() == TMPFS_MAGIC, size, free })
    }

    /// What makes room in it.
    fn remedy(&self) -> String {
        match self.is_tmpfs {
            true => format!("mount -o remount,size=... {}", self.mounted_at.display()),
            false => "set `memory_dir` to a folder on a tmpfs".to_owned(),
        }
    }
}

/// Whether what the daemon may take is there.
fn budget(node: &NodeInfo, place: &Place) -> Finding {
    let found = format!("{} of {} for replicas are in use", units::size(node.used), units::size(node.budget));
    // tmpfs has half of the memory by itself, as replicas do: a few small files there are no reason to worry.
    if node.budget.saturating_sub(node.used) <= place.free + node.budget / 16 {
        return Finding::ok("replica memory", found);
    }
    let (at, left) = (place.folder.display(), units::size(place.free));
    let remedy = format!("{at} has {left} left: {}, or lower `memory`", place.remedy());
    Finding::bad("replica memory", Verdict::Warning, found, remedy)
}

/// Whether large segments stand in large pages: an RDMA device has fewer addresses to keep then, and who touches them first waits less.
fn large_pages(place: &Place) -> Finding {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let huge = huge(&mounts, &place.mounted_at.to_string_lossy());
    let at = place.mounted_at.display();
    match huge {
        Some(huge) => Finding::ok("large pages", format!("{at} is mounted with {huge}")),
        None if place.is_tmpfs => Finding {
            remedy: Some(format!("for segments of many MiB that go over RDMA: mount -o remount,huge=within_size {at}")),
            ..Finding::ok("large pages", format!("none in {at}"))
        },
        None => Finding::ok("large pages", format!("{at} is no tmpfs, which could have them")),
    }
}

/// What a tmpfs was told about large pages, if it is to use them.
fn huge<'m>(mounts: &'m str, at: &str) -> Option<&'m str> {
    // The last one mounted there hides the others.
    let mount = mounts.lines().rfind(|line| line.split(' ').nth(4) == Some(at))?;
    let mut options = mount.rsplit(' ').next()?.split(',');
    options.find(|option| option.starts_with("huge=") && *option != "huge=never")
}

fn room(place: &Place) -> Finding {
    let at = place.folder.display();
    let found = format!("{at}: {} of {} free", units::size(place.free), units::size(place.size));
    if place.free < LEAST {
        return Finding::bad("shared memory", Verdict::Problem, found, place.remedy());
    }
    if !place.is_tmpfs {
        let found = format!("{found}; it is not on tmpfs: as slow as its disk, and lost when the machine starts again");
        return Finding::bad("shared memory", Verdict::Warning, found, place.remedy());
    }
    Finding::ok("shared memory", found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_pages_are_of_the_mount_that_is_seen() {
        let mounts = "29 1 0:25 / /dev/shm rw,nosuid - tmpfs tmpfs rw,huge=always\n\
                      30 1 0:26 / /mnt rw - tmpfs none rw,size=1048576k,huge=within_size\n\
                      31 1 0:27 / /dev/shm rw shared:3 - tmpfs tmpfs rw,size=24684092k\n";
        assert_eq!(
            (huge(mounts, "/mnt"), huge(mounts, "/dev/shm"), huge(mounts, "/")),
            (Some("huge=within_size"), None, None)
        );
        assert_eq!(huge(&mounts.replace("within_size", "never"), "/mnt"), None);
    }
}
