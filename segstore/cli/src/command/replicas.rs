//! `segctl replicas`.

use std::time::{Duration, Instant};

use segstore::{Error, SegmentInfo, Session};

use super::{Context, warnings};
use crate::exit::Failure;
use crate::output::{json, line, progress, units};

/// How often to look whether it is so.
const PAUSE: Duration = Duration::from_millis(100);

pub(crate) fn run(context: &Context, name: &str, number: u32, wait: Duration) -> Result<(), Failure> {
    let session = context.session()?;
    let told = session.set_replicas(name, number)?;
    let info = if told.holder.is_some() { await_number(&session, told, number as usize, wait)? } else { told };
    let in_sync = in_sync(&info);
    if context.json {
        let is_owned = info.holder.is_some();
        json(&serde_json::json!({
            "name": name, "replicas_wanted": number, "replicas_in_sync": in_sync, "is_owned": is_owned,
        }));
    } else {
        let wanted = units::count(u64::from(number), "replica");
        line(format_args!("{name} is to have {wanted} on other nodes; in sync are {in_sync}"));
        if info.holder.is_none() && in_sync != number as usize {
            let who =
                if in_sync < number as usize { "a node fills what is missing" } else { "its next owner sees to it" };
            line(format_args!("Nobody owns it: {who}."));
        }
    }
    if info.holder.is_some() && in_sync != number as usize {
        return Err(Error::NoRoom(why(&session, name, in_sync, number)).into());
    }
    Ok(())
}

/// Those that the record lists on other nodes than the owner's.
fn in_sync(info: &SegmentInfo) -> usize {
    let owner = info.holder.as_ref().map(|holder| holder.node);
    info.record.record.in_sync.iter().filter(|member| Some(member.node) != owner).count()
}

fn await_number(session: &Session, told: SegmentInfo, number: usize, wait: Duration) -> Result<SegmentInfo, Failure> {
    let (until, bar) = (Instant::now() + wait, progress::spinner("waiting for the owner"));
    let mut info = told;
    while in_sync(&info) != number && info.holder.is_some() && Instant::now() < until {
        std::thread::sleep(PAUSE);
        info = session.lookup(&info.name)?;
        bar.set_message(format!("{} of {number} replicas in sync", in_sync(&info)));
    }
    bar.finish_and_clear();
    Ok(info)
}

fn why(session: &Session, name: &str, in_sync: usize, number: u32) -> String {
    let said = match warnings(session, name) {
        none if none.is_empty() => "its owner has not come to it so far".to_owned(),
        said => said.join("; "),
    };
    format!(
        "{in_sync} replicas of {name} are in sync, not {number}: {said}. `segctl status {name}` tells when it is so"
    )
}
