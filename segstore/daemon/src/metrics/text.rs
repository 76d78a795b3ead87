//! What is measured. Segments are asked at the moment of the scrape: nothing is counted on the way of a checkpoint for it.

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::{Registry, Unit};
use segstore::control::message::{Demand, Histogram, OwnerState, Report, SegmentInfo};
use segstore_core::id::NodeId;

use crate::cluster::node_key;
use crate::node::Node;
use crate::replicas::Usage;
use crate::sessions::all_segments;

#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct Labels {
    segment: String,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct LinkLabels {
    segment: String,
    provider: String,
}

#[derive(Debug)]
struct Snapshot {
    usage: Usage,
    sessions: usize,
    up: Vec<NodeId>,
    is_directory_up: bool,
    segments: Vec<(String, OwnerState)>,
    /// What is held here and that nobody has open, and on one node of the cluster every segment that nobody owns.
    at_rest: Vec<SegmentInfo>,
}

/// The text of one scrape.
pub(super) async fn collect(node: &Arc<Node>) -> Result<String, fmt::Error> {
    let (mut owned, mut idle) = (Vec::new(), HashSet::new());
    for (name, session) in node.sessions.held() {
        if node.sessions.is_idle(session, &name) {
            idle.insert(name);
        } else if let Ok(Report::State(state)) =
            node.sessions.demand(session, Demand::State { name: name.clone() }).await
        {
            owned.push((name, *state));
        }
    }
    let (mut at_rest, tells_of_unowned) = (Vec::new(), tells_of_unowned(node));
    if tells_of_unowned || !idle.is_empty() {
        at_rest = all_segments(node).await.unwrap_or_default();
        at_rest.retain(|segment| match segment.holder {
            None => tells_of_unowned,
            Some(_) => idle.contains(&segment.name),
        });
    }
    let snapshot = Snapshot {
        usage: node.replicas.room(),
        sessions: node.sessions.count(),
        up: node.view.up().into_iter().map(|entry| entry.node).collect(),
        is_directory_up: node.directory.read(&node_key(node.id)).await.is_ok(),
        segments: owned,
        at_rest,
    };
    let mut registry = Registry::with_prefix("segstore");
    registry.register_collector(Box::new(snapshot));
    let mut text = String::new();
    encode(&mut text, &registry)?;
    Ok(text)
}

/// Segments that nobody owns are told of by one node: who keeps the directory, or where nobody does, the first that is up.
fn tells_of_unowned(node: &Node) -> bool {
    let up = node.view.up();
    let teller = up.iter().find(|entry| entry.directory).or(up.first());
    teller.is_some_and(|entry| entry.node == node.id)
}

impl Collector for Snapshot {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let node: [(&str, &str, u64); 6] = [
            ("memory_used_bytes", "Memory that replicas take on this node", self.usage.used),
            (
                "memory_free_bytes",
                "Memory that further replicas may take",
                self.usage.budget.saturating_sub(self.usage.used),
            ),
            ("replicas", "Replicas that this node keeps", u64::from(self.usage.replicas)),
            ("sessions", "Sessions of applications on this node", self.sessions as u64),
            ("nodes_up", "Nodes of the cluster whose lease stands", self.up.len() as u64),
            ("directory_up", "Whether the directory answers", u64::from(self.is_directory_up)),
        ];
        for (name, help, value) in node {
            let gauge = ConstGauge::new(value);
            gauge.encode(encoder.encode_descriptor(name, help, None, MetricType::Gauge)?)?;
        }
        self.segment(&mut encoder, "epoch_newest", "Newest checkpoint that was asked for", |state| {
            state.newest.0 as f64
        })?;
        self.segment(&mut encoder, "epoch_acknowledged", "Newest acknowledged checkpoint", |state| {
            state.acknowledged.epoch.0 as f64
        })?;
        self.segment(
            &mut encoder,
            "unsafe_age_seconds",
            "Age of the oldest change that is asked for and not acknowledged",
            |state| state.unsafe_for as f64 / 1e3,
        )?;
        self.segment(&mut encoder, "unsafe_bytes", "Bytes asked for and not acknowledged", |state| {
            state.unsafe_bytes as f64
        })?;
        self.segment(&mut encoder, "length_bytes", "Bytes of application state", |state| state.length as f64)?;
        let in_sync = |segment: &SegmentInfo| segment.live_elsewhere().count() as f64;
        self.each(
            &mut encoder,
            ("replicas_in_sync", "Replicas in sync on other nodes than the owner's, which are up; of a segment that nobody owns, told by the \
              directory's host, or where that is no node, by the first that is up"),
            |state| self.live_elsewhere(state),
            in_sync,
        )?;
        self.each(
            &mut encoder,
            (
                "under_replicated",
                "Whether fewer replicas are in sync on other nodes than the owner's than are asked for",
            ),
            |state| u32::from(self.live_elsewhere(state) < state.wanted),
            |segment| f64::from(u8::from(segment.live_elsewhere().count() < segment.keeping.replicas as usize)),
        )?;
        self.each(
            &mut encoder,
            ("replicas_wanted", "Replicas asked for on other nodes than the owner's"),
            |state| state.wanted,
            |segment| f64::from(segment.keeping.replicas),
        )?;
        self.links(&mut encoder)?;
        self.segment(&mut encoder, "pushed_bytes", "Bytes pushed to replicas by this owner", |state| {
            state.pushed_bytes as f64
        })?;
        self.durations(&mut encoder, "checkpoint_duration", "How long checkpoints took", |state| {
            &state.checkpoint_time
        })?;
        self.durations(&mut encoder, "load_duration", "How long loads took", |state| &state.load_time)
    }
}

impl Snapshot {
    /// The owner's replicas in sync on other nodes that are up: an owner that rests does not notice who is gone.
    fn live_elsewhere(&self, state: &OwnerState) -> u32 {
        let down = state.elsewhere_on.iter().filter(|node| !self.up.contains(node)).count();
        state.elsewhere.saturating_sub(u32::try_from(down).unwrap_or(u32::MAX))
    }

    fn segment(
        &self,
        encoder: &mut DescriptorEncoder<'_>,
        name: &str,
        help: &str,
        value: impl Fn(&OwnerState) -> f64,
    ) -> fmt::Result {
        let name = format!("segment_{name}");
        let mut metric = encoder.encode_descriptor(&name, help, None, MetricType::Gauge)?;
        for (segment, state) in &self.segments {
            let labels = Labels { segment: segment.clone() };
            ConstGauge::new(value(state)).encode(metric.encode_family(&labels)?)?;
        }
        Ok(())
    }

    /// What is told of every segment, open or not.
    fn each(
        &self,
        encoder: &mut DescriptorEncoder<'_>,
        (name, help): (&str, &str),
        of_owned: impl Fn(&OwnerState) -> u32,
        of_resting: impl Fn(&SegmentInfo) -> f64,
    ) -> fmt::Result {
        let owned = self.segments.iter().map(|(name, state)| (name, f64::from(of_owned(state))));
        let at_rest = self.at_rest.iter().map(|segment| (&segment.name, of_resting(segment)));
        let name = format!("segment_{name}");
        let mut metric = encoder.encode_descriptor(&name, help, None, MetricType::Gauge)?;
        for (segment, value) in owned.chain(at_rest) {
            let labels = Labels { segment: segment.clone() };
            ConstGauge::new(value).encode(metric.encode_family(&labels)?)?;
        }
        Ok(())
    }

    fn links(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let help = "Replicas that the owner is connected to, by the transport's provider";
        let mut metric = encoder.encode_descriptor("segment_links", help, None, MetricType::Gauge)?;
        for (segment, state) in &self.segments {
            let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
            for link in &state.links {
                *counts.entry(&link.provider).or_default() += 1;
            }
            for (provider, count) in counts {
                let labels = LinkLabels { segment: segment.clone(), provider: provider.to_owned() };
                ConstGauge::new(count).encode(metric.encode_family(&labels)?)?;
            }
        }
        Ok(())
    }

    fn durations(
        &self,
        encoder: &mut DescriptorEncoder<'_>,
        name: &str,
        help: &str,
        of: impl Fn(&OwnerState) -> &Histogram,
    ) -> fmt::Result {
        let name = format!("segment_{name}");
        let mut metric = encoder.encode_descriptor(&name, help, Some(&Unit::Seconds), MetricType::Histogram)?;
        for (segment, state) in &self.segments {
            let labels = Labels { segment: segment.clone() };
            let Histogram { counts, sum } = of(state);
            let buckets = buckets(counts);
            metric.encode_family(&labels)?.encode_histogram::<prometheus_client::encoding::NoLabelSet>(
                *sum as f64 / 1e9,
                counts.iter().sum(),
                &buckets,
                None,
            )?;
        }
        Ok(())
    }
}

/// The upper bounds in seconds, each with its count; the last has none.
fn buckets(counts: &[u64]) -> Vec<(f64, u64)> {
    let bound = |i: usize| 2_f64.powi(i32::try_from(i).unwrap_or(i32::MAX)) / 1e6;
    let (last, bounded) = counts.split_last().map_or((0, &[][..]), |(last, bounded)| (*last, bounded));
    let bounded = bounded.iter().enumerate().map(|(i, count)| (bound(i), *count));
    bounded.chain([(f64::INFINITY, last)]).collect()
}
