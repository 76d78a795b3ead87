//! `put` and `get`.

use serde_json::Value;

use crate::cluster::Cluster;

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
    assert_eq!(cluster.code(&["get", "a", cluster.dir()]), 2);
}
