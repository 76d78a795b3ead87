//! `segctl doctor`: what this machine lacks, and how to put it right.

mod memory;
mod rdma;

use segstore::{Error, NodeInfo, SegmentInfo};
use serde::Serialize;

use super::{Context, nodes};
use crate::exit::Failure;
use crate::output::{json, units};

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
enum Verdict {
    Ok,
    Warning,
    Problem,
}

#[derive(Serialize)]
struct Finding {
    check: &'static str,
    verdict: Verdict,
    found: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    remedy: Option<String>,
}

impl Finding {
    fn ok(check: &'static str, found: String) -> Self {
        Self { check, verdict: Verdict::Ok, found, remedy: None }
    }

    fn bad(check: &'static str, verdict: Verdict, found: String, remedy: impl Into<String>) -> Self {
        Self { check, verdict, found, remedy: Some(remedy.into()) }
    }
}

pub(crate) fn run(context: &Context) -> Result<(), Failure> {
    let mut findings = Vec::new();
    let mut own = None;
    let session = context.session();
    match &session {
        Ok(session) => {
            let (nodes, segments) = (session.nodes(), session.segments());
            let name = session.node_name();
            let found = format!("node {name} answers at {}", context.socket.display());
            findings.push(Finding::ok("daemon", found));
            findings.extend([cluster(&nodes), directory(&segments), kept(&segments)]);
            own = nodes.ok().and_then(|nodes| nodes.into_iter().find(|node| node.name == name));
        }
        // What else it would be asked would say the same again, each time with another remedy.
        Err(error) => findings.push(no_daemon(error)),
    }
    findings.push(kernel());
    findings.extend(memory::look(own.as_ref()));
    findings.extend(rdma::look(session.as_ref().ok(), &context.socket));
    if context.json {
        json(&findings);
    } else {
        for finding in &findings {
            crate::output::line(format_args!(
                "{:<8} {:<16} {}",
                format!("{:?}", finding.verdict).to_lowercase(),
                finding.check,
                finding.found
            ));
            if let Some(remedy) = &finding.remedy {
                crate::output::line(format_args!("{:<8} {:<16} -> {remedy}", "", ""));
            }
        }
    }
    let problems = findings.iter().filter(|finding| finding.verdict == Verdict::Problem).count();
    if problems > 0 {
        return Err(Failure::Unwell(units::count(problems as u64, "problem")));
    }
    Ok(())
}

fn no_daemon(error: &Error) -> Finding {
    Finding::bad(
        "daemon",
        Verdict::Problem,
        error.to_string(),
        "start it (systemctl start segstored, with scripts/segstored.service; or segctl dev up), or name its socket with --socket",
    )
}

fn cluster(nodes: &segstore::Result<Vec<NodeInfo>>) -> Finding {
    let nodes = match nodes {
        Ok(nodes) => nodes,
        Err(error) => return Finding::bad("cluster", Verdict::Problem, error.to_string(), "see the daemon's log"),
    };
    let found = nodes::up(nodes);
    if nodes.iter().filter(|node| node.up).count() < 2 {
        let remedy = "start segstored on another node: on one node alone nothing survives it";
        return Finding::bad("cluster", Verdict::Warning, found, remedy);
    }
    if let Some(NodeInfo { name, .. }) = nodes.iter().find(|node| !node.up) {
        let remedy = format!("start segstored there; of a node that is gone for good: segctl nodes --forget {name}");
        return Finding::bad("cluster", Verdict::Warning, found, remedy);
    }
    Finding::ok("cluster", found)
}

fn directory(segments: &segstore::Result<Vec<SegmentInfo>>) -> Finding {
    match segments {
        Ok(segments) => {
            Finding::ok("directory", format!("answers, with {}", units::count(segments.len() as u64, "segment")))
        }
        Err(error) => Finding::bad(
            "directory",
            Verdict::Problem,
            error.to_string(),
            "start the daemon that keeps it (see `segctl nodes`), or look at etcd: checkpoints go on, nothing can be opened or taken over",
        ),
    }
}

fn kept(segments: &segstore::Result<Vec<SegmentInfo>>) -> Finding {
    let Ok(segments) = segments else {
        return Finding::bad("segments", Verdict::Warning, "not known without the directory".into(), "see above");
    };
    let troubles = |is_lost: bool| -> Vec<String> {
        let troubled = segments.iter().filter(|segment| segment.is_lost() == is_lost);
        troubled.filter_map(|segment| Some(format!("{}: {}", segment.name, segment.trouble()?))).collect()
    };
    let (lost, short) = (troubles(true), troubles(false));
    if !lost.is_empty() {
        let is_owned = |segment: &SegmentInfo| segment.is_lost() && segment.holder.is_some();
        let remedy = if segments.iter().any(is_owned) {
            "start the nodes that keep them, or give others room. Where an owner runs it has the only copy, and makes others with its next checkpoint: \
             let it run, and remove nothing"
        } else {
            "start the nodes that keep them; a replica whose node has new memory is gone: segctl rm, and make it again"
        };
        return Finding::bad("segments", Verdict::Problem, lost.join("; "), remedy);
    }
    if !short.is_empty() {
        let remedy =
            "an owner that runs makes further replicas by itself, where a further node has room: see segctl nodes";
        return Finding::bad("segments", Verdict::Warning, short.join("; "), remedy);
    }
    let crowds = |segment: &SegmentInfo| Some(format!("{}: {}", segment.name, segment.crowded.as_ref()?));
    let crowded: Vec<_> = segments.iter().filter_map(crowds).collect();
    if !crowded.is_empty() {
        let remedy =
            "add nodes elsewhere, or give those there more room; then `segctl drain` one of these nodes, and undo it";
        return Finding::bad("segments", Verdict::Warning, crowded.join("; "), remedy);
    }
    Finding::ok("segments", "every segment has its replicas".into())
}

fn kernel() -> Finding {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let release = release.trim().to_owned();
    let mut numbers = release.split(['.', '-']).filter_map(|part| part.parse::<u32>().ok());
    let version = (numbers.next().unwrap_or_default(), numbers.next().unwrap_or_default());
    if version < (5, 10) {
        let remedy = "5.10 or newer is what this is tested on";
        return Finding::bad("kernel", Verdict::Warning, release, remedy);
    }
    Finding::ok("kernel", release)
}
